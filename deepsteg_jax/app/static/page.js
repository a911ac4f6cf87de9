// The page: drop zones, forms, and what the program tells of the job. live.js has the camera.
"use strict";

const at = (id) => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const GIVEN = document.documentElement.dataset;
const LIMIT = Number(GIVEN.limit);
const SILENCE_MS = 15000; // of the program, after which it counts as gone
const GONE = "The program behind this page does not answer. If it has ended, what it was doing and its files are " +
  "gone: start it again and reload this page.";

let session = null;
let running = false;
const unsaved = new Set(); // results that were not downloaded, by tab

function say(element, text, kind = "note") { // emptied first, so that a repeated line is read out again
  element.textContent = "";
  element.hidden = !text;
  element.className = `said ${kind}`;
  if (text) setTimeout(() => { element.textContent = text; }, 50);
}

async function ask(method, path, body) {
  const headers = { "X-Session": session ?? "" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error(GONE);
  }
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.problem);
  return told;
}

// --- tabs

function show(name) {
  for (const tab of all("[role=tab]")) {
    const chosen = tab.id === `tab_${name}`;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    at(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (name === "compare") showParts();
  if (name !== "live") deepstegLive.stop();
}

function setUpTabs() {
  const tabs = all("[role=tab]");
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => show(tab.id.slice(4)));
    tab.addEventListener("keydown", ({ key }) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[key];
      if (to === undefined) return;
      const next = tabs[(to + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
  });
  all("[data-to]").forEach((link) => link.addEventListener("click", () => {
    show(link.dataset.to);
    at(`tab_${link.dataset.to}`).focus();
  }));
}

// --- drop zones

function fill(zone, card, removable = true) {
  const shown = at(`card_${zone.dataset.slot}`);
  shown.className = "card";
  shown.innerHTML = card;
  zone.querySelector("[data-remove]").hidden = !card || !removable;
}

function complain(zone, text) {
  fill(zone, "");
  const shown = at(`card_${zone.dataset.slot}`);
  shown.className = "card problem";
  shown.textContent = text;
}

async function changed(zone, change) {
  try {
    fill(zone, (await change()).card ?? "");
  } catch (error) {
    complain(zone, error.message);
  }
  const message = at(`${zone.closest("form").id}_message`);
  if (message.classList.contains("problem")) say(message, "");
  if (zone.dataset.slot.startsWith("compare_")) showParts();
  else estimate();
}

function upload(zone, file) { // XMLHttpRequest tells how far it is
  const problem = !file.size ? `${file.name} is empty: it has 0 bytes.`
    : file.size > LIMIT ? `${file.name} is too large: a file may have ${GIVEN.limitMib} MiB.` : "";
  if (problem) {
    return changed(zone, async () => { // the file that was there is not meant any more
      await ask("DELETE", `slots/${zone.dataset.slot}`);
      throw new Error(problem);
    });
  }
  return changed(zone, () => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `slots/${zone.dataset.slot}?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("X-Session", session);
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => {
      fill(zone, "");
      at(`card_${zone.dataset.slot}`).textContent = `Receiving, ${Math.floor(100 * loaded / total)} %`;
    };
    request.onerror = () => reject(new Error(GONE));
    request.onload = () => (request.status === 200 ? resolve(request.response)
      : reject(new Error(request.response?.problem ?? "The file did not arrive: drop it once more.")));
    request.send(file);
  }));
}

function setUpZone(zone) {
  const slot = zone.dataset.slot, input = zone.querySelector("input[type=file]");
  input.addEventListener("change", () => {
    if (input.files.length) upload(zone, input.files[0]);
    input.value = "";
  });
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) upload(zone, event.dataTransfer.files[0]);
  });
  zone.querySelector("[data-remove]").addEventListener("click", () => {
    changed(zone, () => ask("DELETE", `slots/${slot}`));
    input.focus();
  });
  all("[data-sample]", zone).forEach((button) => button.addEventListener("click", () =>
    changed(zone, () => ask("POST", `slots/${slot}`, { sample: button.dataset.sample }))));
}

async function showParts() {
  try {
    for (const [part, { card, dropped }] of Object.entries(await ask("GET", "parts"))) {
      const zone = at(`drop_compare_${part}`);
      if (card || !at(`card_compare_${part}`).classList.contains("problem")) fill(zone, card, dropped);
    }
  } catch (error) {
    say(at("compare_message"), error.message, "problem");
  }
}

// --- forms

function choices() {
  const form = at("hide").elements;
  return {
    wish: form.wish.value,
    quality: form[`quality_${form.wish.value}`].value,
    longest: Number(form.longest.value),
    loop: form.loop.checked,
    sound: form.sound.checked,
  };
}

let asked = 0;
async function estimate() {
  const mine = ++asked;
  try {
    const { html, short } = await ask("POST", "estimate", choices());
    if (mine !== asked) return;
    at("loop").hidden = !short;
    at("estimate").innerHTML = html;
  } catch (error) {
    say(at("hide_message"), error.message, "problem");
  }
}

function setUpHide() {
  const form = at("hide");
  form.addEventListener("change", ({ target }) => {
    const wish = form.elements.wish.value;
    for (const each of ["file", "post"]) at(`qualities_${each}`).hidden = each !== wish;
    if (!["file", "password"].includes(target.type)) estimate();
  });
  form.addEventListener("input", ({ target }) => {
    if (target.type !== "password") return;
    const [first, again] = [form.elements.passphrase.value, form.elements.again.value];
    const good = !first || (first.length >= GIVEN.characters && new Set(first).size >= GIVEN.different);
    const weak = "The passphrase is weak: whoever has the file could guess it; five random words are better. ";
    at("weak").textContent = (good ? "" : weak) + (again && again !== first ? "The two are not the same yet." : "");
  });
}

function setUpJob(tab, body) {
  const form = at(tab);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await ask("POST", tab, body(form.elements));
      unsaved.delete(tab);
    } catch (error) {
      say(at(`${tab}_message`), error.message, "problem");
    }
  });
  form.querySelector("[data-stop]").addEventListener("click", () => ask("POST", "stop").catch(() => {}));
}

// --- what the program tells

function tell(status) {
  const { tab, said } = status;
  if (!tab) return;
  const message = at(`${tab}_message`), bar = at(`${tab}_bar`);
  running = status.running;
  all("[data-go]").forEach((button) => { button.disabled = running; });
  at(tab).querySelector("[data-stop]").hidden = !running;
  bar.hidden = !running;
  if (running) {
    const progress = bar.querySelector("progress");
    if (status.share === null) progress.removeAttribute("value");
    else progress.value = status.share;
    bar.querySelector("p").textContent = status.left ?? "";
    at(`${tab}_result`).textContent = "";
    if (tab === "compare") at("comparison").hidden = true;
  }
  if (message.dataset.said !== said) say(message, said, status.kind);
  message.dataset.said = said;
  if (!running) end(tab, status);
}

function end(tab, status) {
  const result = at(`${tab}_result`);
  if (status.result && result.dataset.shown !== status.result) {
    result.innerHTML = status.result;
    unsaved.add(tab);
    all("[data-get]", result).forEach((link) => link.addEventListener("click", () => unsaved.delete(tab)));
    all("video", result).forEach((video) => video.addEventListener("error", () => {
      video.hidden = true;
      result.querySelector(".unplayable").hidden = false;
    }));
    all("[data-own]", result).forEach((button) => button.addEventListener("click", revealOwn));
  }
  result.dataset.shown = status.result ?? "";
  if (status.frames) compareView(status);
}

async function revealOwn() {
  await changed(at("drop_stego"), () => ask("POST", "slots/stego", {}));
  show("reveal");
  at("reveal").elements.passphrase.focus();
}

function listen() {
  const address = new URL(`events?session=${session}`, document.baseURI.replace(/^http/, "ws"));
  const socket = new WebSocket(address);
  let last = Date.now(), told = "";
  const silent = (text) => { at("gone").hidden = false; at("gone").textContent = text; };
  const watch = setInterval(() => { if (Date.now() - last > SILENCE_MS) silent(GONE); }, 5000);
  socket.onmessage = ({ data }) => {
    last = Date.now();
    const status = JSON.parse(data);
    if (status.gone) { session = null; silent(status.gone); return; }
    at("gone").hidden = true;
    if (data !== told) tell(status);
    told = data;
  };
  socket.onclose = () => {
    clearInterval(watch);
    if (session === null) return;
    silent(GONE);
    setTimeout(listen, 2000);
  };
}

// --- compare

function compareView({ frames, total, chart }) {
  at("comparison").hidden = false;
  at("chart").innerHTML = chart;
  const slider = at("frame"), wipe = at("wipe"), over = at("over");
  slider.max = frames.length - 1;
  slider.value = 0;
  slider.closest("label").hidden = frames.length < 2;

  function draw() {
    const view = Number(document.querySelector("[name=view]:checked").value);
    const frame = frames[slider.value], [cover, stego, difference, secret, revealed] = frame.pictures;
    const [left, right] = [[cover, stego], [difference], [secret, revealed]][view];
    const names = [["cover", `stego, ${frame.stego_db} dB`], ["difference, 20 times, around grey"],
      ["secret", `revealed, ${frame.secret_db} dB`]][view];
    at("under").src = left;
    at("under").alt = `${names[0]} of frame ${frame.number}`;
    over.hidden = !right;
    if (right) Object.assign(over, { src: right, alt: `${names[1]} of frame ${frame.number}` });
    over.style.clipPath = `inset(0 0 0 ${wipe.value}%)`;
    wipe.disabled = at("flicker").disabled = !right;
    const sides = right ? `left ${names[0]}, right ${names[1]}` : names[0];
    at("caption").textContent = `Frame ${frame.number} of ${total}: ${sides}`;
    slider.setAttribute("aria-valuetext", `frame ${frame.number}`);
  }
  let timer = null;
  function flicker(on) { // slower than three times a second, which is safe for everybody
    clearInterval(timer);
    timer = on ? setInterval(() => { over.style.visibility = over.style.visibility ? "" : "hidden"; }, 500) : null;
    over.style.visibility = "";
    over.style.clipPath = `inset(0 0 0 ${on ? 0 : wipe.value}%)`;
    at("flicker").setAttribute("aria-pressed", on);
  }
  slider.oninput = draw;
  wipe.oninput = () => { flicker(false); draw(); };
  all("[name=view]").forEach((view) => { view.onchange = () => { flicker(false); draw(); }; });
  at("flicker").onclick = () => flicker(timer === null);
  flicker(false);
  draw();
}

// --- the beginning and the end

async function begin() {
  setUpTabs();
  all("[data-slot]").forEach(setUpZone);
  setUpHide();
  setUpJob("hide", (form) => ({ ...choices(), passphrase: form.passphrase.value, again: form.again.value }));
  setUpJob("reveal", (form) => ({ passphrase: form.passphrase.value }));
  setUpJob("compare", () => undefined);
  deepstegLive.setUp(() => session);
  for (const name of ["dragover", "drop"]) { // beside a drop zone the browser would leave for the file
    window.addEventListener(name, (event) => event.preventDefault());
  }
  window.addEventListener("beforeunload", (event) => { if (running || unsaved.size) event.preventDefault(); });
  window.addEventListener("pagehide", () => {
    if (session) fetch("session", { method: "DELETE", headers: { "X-Session": session }, keepalive: true });
  });
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  try {
    session = (await ask("POST", "session")).session;
    listen();
  } catch (error) {
    at("gone").hidden = false;
    at("gone").textContent = error.message;
  }
}

begin();

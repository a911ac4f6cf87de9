// The camera of the Live tab: frames go to the program and come back through one WebSocket, as JPEGs.
"use strict";

const deepstegLive = (() => {
  const PARTS = ["cover", "stego", "secret", "revealed"];
  const MOST_ON_THE_WAY = 2; // groups of frames
  const REASONS = {
    NotFoundError: "No camera was found: plug one in, then start again.",
    NotAllowedError: "The browser may not use the camera: allow it for this page, in the address bar.",
    NotReadableError: "The camera is in use by another program: close that, then start again.",
    OverconstrainedError: "The camera has no picture of this size: choose the other one.",
  };
  let running = null;

  const find = (id) => document.getElementById(`live_${id}`);

  function report(text, kind = "note") {
    find("message").hidden = !text;
    find("message").className = `said ${kind}`;
    find("message").textContent = text;
  }

  async function start(session, size) {
    stop();
    const [width, height] = size.split("x").map(Number);
    if (!navigator.mediaDevices) {
      return report("Browsers give their camera only to pages of this computer or over https.", "problem");
    }
    report("Starting …");
    const mine = running = { frames: [] };
    find("stop").hidden = false;
    try {
      mine.stream = await navigator.mediaDevices.getUserMedia({ video: { width, height }, audio: false });
    } catch (error) {
      return stop(REASONS[error.name] ?? "The camera cannot be used: see that it is free, then start again.");
    }
    if (running !== mine) return mine.stream.getTracks().forEach((track) => track.stop());
    mine.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    mine.video.srcObject = mine.stream;
    await mine.video.play();
    connect(mine, session, width, height);
  }

  function connect(mine, session, width, height) {
    const path = `live?session=${encodeURIComponent(session)}&width=${width}&height=${height}`;
    const socket = mine.socket = new WebSocket(new URL(path, document.baseURI.replace(/^http/, "ws")));
    socket.binaryType = "arraybuffer";
    for (const part of PARTS) Object.assign(find(part), { width, height });
    let group = 1, onTheWay = 0;
    socket.onmessage = async ({ data }) => {
      if (typeof data === "string") {
        const told = JSON.parse(data);
        if (told.error) return stop(told.error);
        group = told.ready;
        report("");
        find("view").hidden = false;
        mine.timer = setInterval(send, 15);
        mine.player = setTimeout(play, 0);
        return;
      }
      onTheWay -= 1;
      mine.frames.push(await unpack(data));
    };
    socket.onclose = () => { if (running === mine) stop("The camera has stopped: the program does not answer."); };

    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    let coding = false, shownAt = -1;
    function send() {
      const now = mine.video.currentTime; // another frame of the camera
      if (coding || now === shownAt || onTheWay >= MOST_ON_THE_WAY * group || socket.readyState !== 1) return;
      [coding, shownAt] = [true, now];
      crop(context, mine.video, width, height);
      canvas.toBlob((blob) => {
        coding = false;
        if (socket.readyState !== 1) return;
        onTheWay += 1;
        socket.send(blob);
      }, "image/jpeg", 0.92);
    }

    function play() { // frames come in groups: they are shown one by one
      const next = mine.frames.shift();
      if (next) show(next);
      const pace = next ? 1000 / Math.max(next.fps, 5) : 10;
      mine.player = setTimeout(play, mine.frames.length > group ? pace / 2 : pace * 0.9);
    }
  }

  function crop(context, video, width, height) { // the middle of a picture of another shape
    const scale = Math.max(width / video.videoWidth, height / video.videoHeight);
    const [w, h] = [width / scale, height / scale];
    context.drawImage(video, (video.videoWidth - w) / 2, (video.videoHeight - h) / 2, w, h, 0, 0, width, height);
  }

  async function unpack(data) {
    const length = new DataView(data).getUint32(0);
    const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    let begin = 4 + length;
    head.pictures = await Promise.all(head.sizes.map((size) => {
      const blob = new Blob([new Uint8Array(data, begin, size)], { type: "image/jpeg" });
      begin += size;
      return createImageBitmap(blob);
    }));
    return head;
  }

  function show(frame) {
    PARTS.forEach((part, i) => find(part).getContext("2d").drawImage(frame.pictures[i], 0, 0));
    frame.pictures.forEach((picture) => picture.close());
    find("figures").textContent =
      `${frame.fps.toFixed(1)} frames/s, ${frame.latency_ms.toFixed(0)} ms late; ` +
      `stego ${frame.stego_db.toFixed(1)} dB, secret ${frame.secret_db.toFixed(1)} dB`;
  }

  function stop(reason = "") {
    const mine = running;
    running = null;
    find("stop").hidden = true;
    if (!mine) return;
    clearInterval(mine.timer);
    clearTimeout(mine.player);
    mine.stream?.getTracks().forEach((track) => track.stop());
    mine.socket?.close();
    report(reason, reason ? "problem" : "note");
  }

  function setUp(session) {
    const form = document.getElementById("live");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!document.querySelector("#card_live img")) return report("Drop a secret first.", "problem");
      start(session(), form.elements.size.value);
    });
    find("stop").addEventListener("click", () => stop());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && running) stop("The camera was switched off when you left this page.");
    });
  }

  return { setUp, stop };
})();

// What gradio does not do: messages that screen readers announce, and the camera of the Live tab.
document.addEventListener("DOMContentLoaded", () => {
  const label = () => {
    for (const element of document.querySelectorAll(".announce:not([aria-live])")) {
      element.setAttribute("role", "status");
      element.setAttribute("aria-live", "polite");
    }
  };
  new MutationObserver(label).observe(document.body, { childList: true, subtree: true });
});

const deepstegLive = (() => {
  const PARTS = ["cover", "stego", "secret", "revealed"];
  const MOST_ON_THE_WAY = 2; // groups of frames
  let running = null;

  const at = (id) => document.getElementById(id);
  const say = (text) => { at("live_message").innerHTML = ""; if (text) {
    const said = document.createElement("p");
    said.className = "said";
    said.textContent = text;
    at("live_message").append(said);
  } };

  async function start(token, size) {
    stop();
    const [width, height] = size.split("x").map(Number);
    if (!token) return say("Drop a secret first.");
    if (!navigator.mediaDevices) {
      return say("The browser gives its camera only to pages of this computer or over https.");
    }
    say("Starting …");
    const mine = running = { frames: [] };
    try {
      mine.stream = await navigator.mediaDevices.getUserMedia({ video: { width, height }, audio: false });
    } catch (error) {
      return say(`The camera cannot be used (${error.name}). Allow it for this page, and see that it is free.`);
    }
    if (running !== mine) return mine.stream.getTracks().forEach((track) => track.stop());
    mine.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    mine.video.srcObject = mine.stream;
    await mine.video.play();
    connect(mine, token, width, height);
  }

  function connect(mine, token, width, height) {
    const path = `live/${encodeURIComponent(token)}?width=${width}&height=${height}`;
    const socket = mine.socket = new WebSocket(new URL(path, document.baseURI.replace(/^http/, "ws")));
    socket.binaryType = "arraybuffer";
    for (const part of PARTS) Object.assign(at(`live_${part}`), { width, height });
    let group = 1, onTheWay = 0;
    socket.onmessage = async ({ data }) => {
      if (typeof data === "string") {
        const told = JSON.parse(data);
        if (told.error) { stop(); say(told.error); return; }
        group = told.ready;
        say("");
        at("live_view").hidden = false;
        mine.timer = setInterval(send, 15);
        mine.player = setTimeout(play, 0);
        return;
      }
      onTheWay -= 1;
      mine.frames.push(await unpack(data));
    };
    socket.onclose = () => { if (running === mine) { stop(); say("The camera has stopped."); } };

    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    let coding = false, shownAt = -1;
    function send() {
      const now = mine.video.currentTime; // another frame of the camera
      if (coding || now === shownAt || onTheWay >= MOST_ON_THE_WAY * group || socket.readyState !== 1) return;
      [coding, shownAt] = [true, now];
      fill(context, mine.video, width, height);
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

  function fill(context, video, width, height) { // the middle of a picture of another shape
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
    PARTS.forEach((part, i) => at(`live_${part}`).getContext("2d").drawImage(frame.pictures[i], 0, 0));
    frame.pictures.forEach((picture) => picture.close());
    at("live_figures").textContent =
      `${frame.fps.toFixed(1)} frames/s, ${frame.latency_ms.toFixed(0)} ms late; ` +
      `stego ${frame.stego_db.toFixed(1)} dB, secret ${frame.secret_db.toFixed(1)} dB`;
  }

  function stop() {
    const mine = running;
    running = null;
    if (!mine) return;
    clearInterval(mine.timer);
    clearTimeout(mine.player);
    mine.stream?.getTracks().forEach((track) => track.stop());
    mine.socket?.close();
    say("");
  }

  return { start, stop };
})();

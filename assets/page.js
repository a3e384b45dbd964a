// What only the browser can do: explain a missing microphone, keys, the visitor's language, a lost connection.
(() => {
  const root = document.documentElement;
  const find = (selector) => [...document.querySelectorAll(selector)].find((element) => element.offsetParent);

  // The style sheet shows the explanation that matches the reason.
  const explain = (reason) => { root.dataset.microphone = reason; };
  const media = navigator.mediaDevices;
  if (!window.isSecureContext || !media || !media.getUserMedia) explain("insecure");
  else {
    const names = { NotAllowedError: "denied", SecurityError: "denied", NotFoundError: "missing",
                    OverconstrainedError: "missing" };
    const open = media.getUserMedia.bind(media);
    media.getUserMedia = (wanted) => open(wanted).then(
      (stream) => { delete root.dataset.microphone; return stream; },
      (error) => { explain(names[error.name] || "busy"); throw error; });
  }

  // Language: the one chosen here before, or the browser's first that the page speaks.
  const KEY = "earshot-language";
  const memory = { get: () => { try { return localStorage.getItem(KEY); } catch { return null; } },
                   set: (code) => { try { localStorage.setItem(KEY, code); } catch { /* not remembered */ } } };
  const spoken = (languages) => languages.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => /^(en|zh)$/.test(tag));
  const language = () => memory.get() || spoken([...(navigator.languages || [navigator.language])]) || "en";
  const settle = () => {
    root.lang = language() === "zh" ? "zh-CN" : "en";
    delete root.dataset.settling;
    document.querySelectorAll("#microphone-notes .port").forEach((word) => { word.textContent = location.port || "80"; });
  };
  if (language() !== "en") {  // the page arrives in English: it stays covered until its words have changed
    root.dataset.settling = "";
    setTimeout(settle, 5000);
  }

  // Who this visitor is: a secret that only this page knows
  const key = btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(18)))).replace(/\+/g, "-").replace(/\//g, "_");

  // Talking: what the Talk button and the space bar do with Gradio's recorder.
  const until = async (selector) => {
    for (let look = 0; look < 60; look += 1) {
      const element = find(selector);
      if (element) return element;
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
    return null;
  };
  const STOP = "#recording .stop-button", RECORD = "#recording .record-button";
  const talk = async () => {
    const stop = find(STOP);
    if (stop) return stop.click();
    silence();
    const live = document.querySelector("#hands-free input");
    if (live?.checked) live.click();  // one way to talk at a time
    if (!find(RECORD)) find("#recording .top-panel button:last-of-type")?.click();
    if (!await until(RECORD)) return undefined;
    await new Promise((resolve) => { setTimeout(resolve, 50); });
    return find(RECORD)?.click();
  };
  const silence = () => {
    document.querySelectorAll("audio").forEach((audio) => audio.pause());
    window.earshot.hush();
  };

  let byKeyboard = false, pressed = 0;  // a button reached with Tab keeps its space bar
  const HELD = 500;  // milliseconds from which letting go of the space bar ends the recording
  const typing = (target) => target.closest("textarea, select, [contenteditable], input:not([type=radio])");
  const taken = (target) => byKeyboard && target.closest("button, a, summary, audio, input");
  const ours = (event) => event.code === "Space" && !event.ctrlKey && !event.altKey && !event.metaKey
    && !typing(event.target) && !taken(event.target);
  addEventListener("pointerdown", () => { byKeyboard = false; }, true);
  addEventListener("keydown", (event) => {
    if (event.key === "Tab") byKeyboard = true;
    if (event.key === "Escape") {
      silence();
      document.querySelector("#stop")?.click();
    }
    if (!ours(event)) return;
    event.preventDefault();
    if (event.repeat) return;
    pressed = find(STOP) ? 0 : performance.now();
    talk();
  }, true);
  addEventListener("keyup", async (event) => {
    if (!ours(event)) return;
    event.preventDefault();
    if (pressed && performance.now() - pressed >= HELD) (await until(STOP))?.click();
    pressed = 0;
  }, true);

  // A server that went away: say so; what was asked stays readable until another server, which knows nothing of this
  // visit, answers in its place.
  const LOOK = 3000;  // milliseconds between two looks
  let server = null;
  const look = async () => {
    const there = await fetch("gradio_api/app_id", { cache: "no-store" })
      .then((answer) => (answer.ok ? answer.text() : null), () => null);
    if (there && server && there !== server) return location.reload();
    if (there) delete root.dataset.lost; else root.dataset.lost = "";
    server = there || server;
    return setTimeout(look, LOOK);
  };
  look();

  window.earshot = { key, language, settle, talk, choose: (code) => { memory.set(code); return code; } };
})();

// The live line: an open microphone that streams to the server, and a loudspeaker that plays replies as pieces arrive.
(() => {
  const root = document.documentElement;
  const ECHO = 300;  // milliseconds after the last sound in which the microphone stays closed: rooms lag behind
  const AGAIN = 1000;  // milliseconds between two attempts to reach the server
  const BEHIND = 2 ** 19;  // bytes that may wait to be sent; sound that comes later is not worth sending
  const FLOOR = -60;  // dB below full scale at which the meter is empty
  const show = (state) => { root.dataset.live = state; };
  const checked = (name) => Boolean(document.querySelector(`#${name} input`)?.checked);
  const turnOff = () => { if (checked("hands-free")) document.querySelector("#hands-free input").click(); };

  // The line
  let socket = null, state = "off";
  const send = (message) => { if (socket?.readyState === WebSocket.OPEN && socket.bufferedAmount < BEHIND) socket.send(message); };
  const tell = (message) => send(JSON.stringify(message));
  const refresh = () => show(speaker.playing() ? "speaking" : state);
  const connect = () => {
    const address = new URL("live", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const line = socket = new WebSocket(address);
    line.binaryType = "arraybuffer";
    let about = null;  // what the next samples are
    line.onopen = () => {
      root.dataset.line = "";
      tell({ key: window.earshot.key });
      if (microphone) tell({ rate: microphone.rate });
    };
    line.onclose = () => {
      delete root.dataset.line;
      setTimeout(connect, AGAIN);
    };
    line.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer) speaker.play(about, new Int16Array(data));
      else take(about = JSON.parse(data));
    };
  };
  const take = (message) => {
    if (message.silence) speaker.silence();
    if (message.unspoken) document.querySelector("#speech .unspoken").textContent = message.unspoken;
    if (message.state === "off") turnOff();
    else if (message.state && microphone) state = message.state;
    refresh();
  };

  // The loudspeaker: pieces are queued without gaps, and it is known how much of them was heard
  const speaker = (() => {
    let context = null, pieces = [], turn = null, ended = -ECHO;
    const wake = () => {
      context ??= new AudioContext();
      if (context.state === "suspended") context.resume();
      return context;
    };
    addEventListener("pointerdown", wake, true);
    addEventListener("keydown", wake, true);
    const now = () => (context ? context.currentTime : 0);
    const playing = () => pieces.some((piece) => piece.end > now());
    return {
      playing,
      echoing: () => playing() || performance.now() - ended < ECHO,
      play: (about, samples) => {
        const { destination } = wake();
        if (about.sound !== turn) [turn, pieces] = [about.sound, []];
        document.querySelector("#speech .unspoken").textContent = "";
        const sound = context.createBuffer(1, samples.length, about.rate);
        sound.copyToChannel(Float32Array.from(samples, (sample) => sample / 32768), 0);
        const source = new AudioBufferSourceNode(context, { buffer: sound });
        source.connect(destination);
        const start = Math.max(now() + 0.02, ...pieces.map((piece) => piece.end));
        pieces.push({ source, start, end: start + sound.duration });
        source.onended = () => { ended = performance.now(); refresh(); };
        source.start(start);
        root.dataset.spoken = String(Number(root.dataset.spoken || 0) + 1);
        refresh();
      },
      silence: () => {
        if (!playing()) return;
        const heard = pieces.map(({ start, end }) => Math.min(1, Math.max(0, (now() - start) / (end - start))));
        tell({ heard: heard.reduce((sum, part) => sum + part, 0), of: turn });
        pieces.forEach(({ source }) => { source.onended = null; source.stop(); });
        [pieces, ended] = [[], performance.now()];
        refresh();
      },
    };
  })();

  // The microphone
  const CAPTURE = `registerProcessor("capture", class extends AudioWorkletProcessor {
    constructor() { super(); this.block = new Float32Array(Math.round(sampleRate / 31.25)); this.filled = 0; }
    process([[samples]]) {
      for (const sample of samples || []) {
        this.block[this.filled++] = sample;
        if (this.filled === this.block.length) { this.port.postMessage(this.block); this.filled = 0; }
      }
      return true;
    }
  });`;
  let microphone = null, gated = false, wanted = false;
  const hear = ({ data }) => {
    const power = data.reduce((sum, sample) => sum + sample * sample, 0) / data.length;
    const level = Math.max(0, 1 - (10 * Math.log10(power + 1e-9)) / FLOOR);
    root.style.setProperty("--level", Math.min(1, level).toFixed(2));
    const closed = !checked("barge-in") && speaker.echoing();
    if (closed && !gated) {
      tell({ gate: true });
      state = "listening";
    }
    gated = closed;
    if (!closed) send(Int16Array.from(data, (sample) => Math.max(-1, Math.min(1, sample)) * 32767).buffer);
  };
  const open = async () => {
    const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    const close = () => stream.getTracks().forEach((track) => track.stop());
    try {
      const context = new AudioContext();
      const code = URL.createObjectURL(new Blob([CAPTURE], { type: "text/javascript" }));
      await context.audioWorklet.addModule(code);
      URL.revokeObjectURL(code);
      const capture = new AudioWorkletNode(context, "capture");
      capture.port.onmessage = hear;
      context.createMediaStreamSource(stream).connect(capture);
      stream.getTracks()[0].onended = () => { root.dataset.microphone = "missing"; turnOff(); };
      return { rate: context.sampleRate, close: () => { capture.port.onmessage = null; context.close(); close(); } };
    } catch (error) {
      close();
      throw error;
    }
  };
  const listen = async (on) => {
    wanted = on;
    if (!on) {
      microphone?.close();
      microphone = null;
      state = "off";
      root.style.setProperty("--level", 0);
      refresh();
      return;
    }
    try {
      const opened = await open();
      if (!wanted || microphone) { opened.close(); return; }
      microphone = opened;
      state = "listening";
      tell({ rate: microphone.rate });
      refresh();
    } catch (error) {  // assets/page.js has explained it
      turnOff();
    }
  };

  show("off");
  // What was heard of a reply is told before what follows it is asked
  addEventListener("click", ({ target }) => {
    if (target.closest("#send, #ask, #talk, #samples button, .again button")) speaker.silence();
  }, true);
  connect();
  Object.assign(window.earshot, { listen, hush: () => speaker.silence() });
})();

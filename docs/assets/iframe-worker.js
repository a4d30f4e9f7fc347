// Browsers start no Worker for a page that was opened from disk. The search then runs
// in a hidden frame, which has the same two channels.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = this.onerror = null;
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      this.inside = frame.contentWindow;
      const page = frame.contentDocument;
      const script = (src) =>
        new Promise((resolve, reject) => {
          const element = page.createElement("script");
          Object.assign(element, { src, onload: resolve, onerror: reject });
          page.body.appendChild(element);
        });
      this.inside.importScripts = (...urls) =>
        urls.reduce(
          (done, src) => done.then(() => script(new URL(src, url).href)),
          Promise.resolve()
        );
      this.inside.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      this.ready = script(url);
    }
    postMessage(data) {
      this.ready.then(() =>
        this.inside.dispatchEvent(new MessageEvent("message", { data }))
      );
    }
    terminate() {}
  };
}

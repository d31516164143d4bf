// Browsers do not start web workers on pages that are opened as files. On such pages this class
// runs the worker of the search in an iframe, with the part of the Worker interface that it uses.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      const scope = frame.contentWindow
      scope.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      scope.importScripts = (...urls) => urls.reduce(
        (before, next) => before.then(() => this.load(frame, next)), Promise.resolve())
      this.scope = scope
      this.ready = this.load(frame, url)
    }

    load(frame, url) {
      return new Promise((resolve, reject) => {
        const script = frame.contentDocument.createElement("script")
        script.src = new URL(url, document.baseURI).href
        script.onload = resolve
        script.onerror = reject
        frame.contentDocument.body.appendChild(script)
      })
    }

    postMessage(data) {
      this.ready.then(() => {
        this.scope.dispatchEvent(new this.scope.MessageEvent("message", { data }))
      })
    }
  }
  window.Worker = window.IFrameWorker
}

// Copy link, code and files of the scene: a button each in the page's header, and a dialog.

const LINK = "Copy link"

function make(tag, attributes = {}, text = "") {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  if (text) element.textContent = text
  return element
}

function button(text, act, attributes = {}) {
  const found = make("button", { type: "button", ...attributes }, text)
  found.onclick = act
  return found
}

/** Copy a text; where the browser does not let us, as on an address without https, select it to be copied by hand. */
async function copy(text, element, said) {
  try {
    await navigator.clipboard.writeText(text)
    const before = said.textContent
    said.textContent = "Copied"
    setTimeout(() => (said.textContent = before), 1500)
  } catch {
    getSelection().selectAllChildren(element)
  }
}

export function render({ model, el }) {
  const whole = (search) => location.origin + location.pathname + search
  const ask = (kind) => model.send_msg({ kind })
  const link = button(LINK, () => ask("link"), { class: "first" })
  const open = button("Export", () => ask("open"), { "aria-haspopup": "dialog" })
  const dialog = make("dialog", { "aria-label": "Take it with you" })
  const head = make("div", { class: "head" })
  head.append(make("h2", {}, "Take it with you"), button("Close", () => dialog.close()))
  const texts = make("div")
  const files = make("ul")
  const waiting = make("span", { role: "status", class: "waiting" })
  const makers = []
  for (const [kind, [title, doc]] of Object.entries(model.offered)) {
    const item = make("li")
    const get = button(title, () => ask(kind))
    makers.push(get)
    item.append(get, make("code", {}, `.${kind}`), make("span", {}, doc))
    files.append(item)
  }
  const download = make("h3", {}, "Download")
  download.append(waiting)
  dialog.append(head, download, files, texts)
  const bar = make("div", { class: "bar" })
  bar.append(link, open)
  el.append(make("style", {}, model.style), bar, dialog)

  const written = (title, text) => {
    const shown = make("pre", {}, text)
    const line = make("h3", {}, title)
    const get = button("Copy", () => copy(text, shown, get), { "aria-label": `Copy: ${title}` })
    line.append(get)
    texts.append(line, shown)
    return shown
  }
  const show = ({ search, codes }) => {
    texts.replaceChildren()
    const shown = written("Link", whole(search))
    for (const [title, text] of Object.entries(codes)) written(title, text)
    if (!dialog.open) dialog.showModal()
    return shown
  }
  // Browsers let a page save a file a few seconds after a click; later it takes another one.
  const save = ({ name, data }) => {
    const anchor = make("a", { href: URL.createObjectURL(new Blob([data])), download: name }, `Save ${name}`)
    waiting.replaceChildren(anchor)
    if (navigator.userActivation?.isActive) anchor.click()
    ask("taken")
  }
  model.on("answer", async () => {
    const { answer } = model
    if (answer.kind === "link") {
      try {
        await navigator.clipboard.writeText(whole(answer.search))
        link.textContent = "Copied"
        setTimeout(() => (link.textContent = LINK), 1500)
      } catch {
        getSelection().selectAllChildren(show(answer))
      }
    } else if (answer.kind === "open") show(answer)
    else if (answer.kind === "file") save(answer)
  })
  model.on("preparing", () => {
    const title = model.preparing && model.offered[model.preparing][0]
    if (title) {
      const old = waiting.querySelector("a")
      if (old) URL.revokeObjectURL(old.href)
      waiting.textContent = `Preparing “${title}” …`
    } else if (!waiting.querySelector("a")) waiting.textContent = ""
    for (const get of makers) get.disabled = Boolean(title)
  })
}

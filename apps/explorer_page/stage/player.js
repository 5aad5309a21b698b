// An exported file: the stage with recorded parts, one set for each step of the time line and value of the sliders.

/** What `Packer.packed` wrote: the contents, and the bytes of their arrays. */
async function unpack(text) {
  const deflated = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0))
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate-raw"))
  const bytes = await new Response(stream).arrayBuffer()
  const length = new DataView(bytes).getUint32(0, true)
  const { said, parts } = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)))
  return { said, parts, bytes, from: 4 + length }
}

const ARRAYS = { u8: Uint8Array, i16: Int16Array, f32: Float32Array, u16: Uint16Array }

/** A part with its arrays; coordinates are 16-bit numbers between the bounds of each of their pieces. */
function revived(value, bytes, from) {
  if (value === null || typeof value !== "object") return value
  if (Array.isArray(value)) return value.map((v) => revived(v, bytes, from))
  if (!("kind" in value && "at" in value))
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, revived(v, bytes, from)]))
  const numbers = new ARRAYS[value.kind](bytes, from + value.at, value.length)
  if (!value.bounds) return numbers
  const found = new Float32Array(numbers.length)
  const piece = numbers.length / value.bounds.length
  value.bounds.forEach(([low, high], k) => {
    const unit = (high - low) / 65534
    for (let i = k * piece; i < (k + 1) * piece; i++) found[i] = numbers[i] === 65535 ? NaN : low + unit * numbers[i]
  })
  return found
}

class Player {
  /** `onchange` is called with the number of each picture that is shown. */
  constructor(root, { said, parts, bytes, from }, onchange) {
    this.said = said
    this.onchange = onchange
    this.revive = (index) => revived(parts[index], bytes, from)
    this.parts = new Map()
    this.shown = {}
    this.view = { ...said.start, said: 0 } // what a visitor can change
    this.chosen = said.sliders.map((slider) => slider.start)
    this.stage = createStage(root, (message) => this.hear(message), true)
    this.stage.set("looks", said.looks)
    this.stage.set("words", said.words)
    this.stage.set("status", { busy: 0, coarse: 0 })
    if (said.sliders.length) this.stage.left.prepend(this.sliders())
    this.show()
  }

  /** Which of the recorded pictures: the sliders' places as one number. */
  get picture() {
    return this.said.sliders.reduce((at, slider, i) => at * slider.values.length + this.chosen[i], 0)
  }

  part(index) {
    if (!this.parts.has(index)) this.parts.set(index, this.revive(index))
    return this.parts.get(index)
  }

  /** Set what differs from what is shown; the board last, so that it finds everything there. */
  show() {
    const shot = this.said.shots[this.picture][this.view.step]
    for (const [name, index] of Object.entries(shot)) {
      if (name === "board" || name === "legend") continue
      const key = name.startsWith("scene_") ? `${index} ${this.view.bands}` : index
      if (this.shown[name] === key) continue
      this.shown[name] = key
      this.stage.set(name, name.startsWith("scene_") ? this.scene(this.part(index)) : this.part(index))
    }
    const { layers, opacity, window, following, step, sample, said } = this.view
    this.stage.set("board", { ...this.part(shot.board), layers, opacity, window, following, step, sample, said })
    this.showLegend(this.part(shot.legend))
    if (this.shown.picture !== this.picture) this.onchange((this.shown.picture = this.picture))
  }

  scene(scene) {
    return this.view.bands === "none" ? { ...scene, image: undefined } : scene
  }

  showLegend(legend) {
    const { layers, bands } = this.view
    const key = JSON.stringify([legend, layers, bands])
    if (this.shown.legend === key) return
    this.shown.legend = key
    const groups = legend.groups.map((group) => ({
      ...group,
      rows: group.rows.map((row) => ({ ...row, on: layers.includes(row.key) })),
    }))
    const background = bands === "none" ? { value: bands, note: "", marks: null } : {}
    this.stage.set("legend", { ...legend, groups, bands: { ...legend.bands, ...background } })
  }

  /** What the server does for the page, as far as it can be done without one. */
  hear(message) {
    const { view } = this
    view.said = message.said
    if (message.kind === "step") view.step = message.value
    else if (message.kind === "window") Object.assign(view, { window: message.value, following: message.following })
    else if (message.kind === "home") Object.assign(view, { window: this.stage.home, following: true })
    else if (["sample", "opacity", "bands"].includes(message.kind)) view[message.kind] = message.value
    else if (message.kind === "layer") {
      const others = view.layers.filter((layer) => layer !== message.layer)
      view.layers = message.on ? [...others, message.layer] : others
    }
    this.show()
  }

  sliders() {
    const row = make("div", { class: "sliders" })
    this.said.sliders.forEach(({ label, doc, values }, i) => {
      const value = make("output")
      const slider = make("input", { type: "range", min: 0, max: values.length - 1, step: 1, "aria-label": label })
      slider.value = this.chosen[i]
      const write = () => {
        value.textContent = String(values[this.chosen[i]])
        slider.setAttribute("aria-valuetext", value.textContent)
      }
      slider.oninput = () => {
        this.chosen[i] = Number(slider.value)
        write()
        this.show()
      }
      const line = make("label", { title: doc })
      line.append(make("span", {}, label), slider, value)
      row.append(line)
      write()
    })
    return row
  }
}

/** Let a stage have the system's theme, until the button is pressed that changes it. */
function themeSwitch(button, stage) {
  const system = matchMedia("(prefers-color-scheme: dark)")
  const dress = (dark) => {
    document.documentElement.classList.toggle("dark", dark)
    stage.setDark(dark)
    button.textContent = dark ? "Light" : "Dark"
  }
  const follow = () => dress(system.matches)
  system.addEventListener("change", follow)
  button.onclick = () => {
    system.removeEventListener("change", follow)
    dress(!document.documentElement.classList.contains("dark"))
  }
  follow()
}

/** Write the code of the shown picture, with a button for each text that copies it. */
function writeCodes(element, codes) {
  element.replaceChildren()
  for (const [title, text] of Object.entries(codes)) {
    const head = make("h2", {}, title)
    const copy = make("button", { type: "button", "aria-label": `Copy ${title}` }, "Copy")
    copy.onclick = async () => {
      await navigator.clipboard.writeText(text)
      copy.textContent = "Copied"
      setTimeout(() => (copy.textContent = "Copy"), 1500)
    }
    head.append(copy)
    element.append(head, make("pre", {}, text))
  }
}

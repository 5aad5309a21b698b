// The stage: one to four panels on the same noise, their time line, headline and legend.
//
// `createStage(root, send, fixed)` builds it; `fixed` leaves out what only a server can do. What it shows is set part by part with `stage.set(name, value)`: `board`, `run_1`
// to `run_4`, `scene_1` to `scene_4`, `arrows_1` to `arrows_4`, `marks`, `legend`, `headline`, `status` and `looks`. What
// a visitor does is said with `send(message)`. The explorer and exported files use the same stage.

const LETTERS = ["A", "B", "C", "D"]
const STILL = [
  ["other-regions", "region"],
  ["region", "region"],
]
const LINES = [
  ["exact-lines", "exact-lines"],
  ["main-lines", "main-lines"],
  ["guide-lines", "guide-lines"],
  ["boundary", "boundary"],
]
const MORE = [
  ["table", "All numbers", "Every metric of every panel, with intervals"],
  ["curve", "A metric against a parameter", "A metric over all values of a parameter, with several seeds"],
  ["point", "One point", "Scores, curvature and every term of the rules at a point; a click into a plot does the same"],
  ["sample", "Sample", "Close what is known of the sample that is followed"],
  ["errors", "Errors over σ", "What each rule does to the error of the main field, over the noise levels"],
  ["edge", "The edge between two classes", "Density, curvature and posterior on the line between two classes"],
]
const DURATION = 5 // seconds of a whole play at speed 1
const REST = 140 // milliseconds without a move after which lines are drawn anew
const KEPT = 140 // scenes of other noise levels

function make(tag, attributes = {}, text = "") {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  if (text) element.textContent = text
  return element
}

class Stage {
  constructor(root, send, fixed) {
    this.send = send
    this.fixed = fixed
    this.root = root
    this.panels = []
    this.runs = {}
    this.levels = [1, 0]
    this.home = [-1, -1, 1, 1]
    this.base = [-1, -1, 1, 1]
    this.following = true
    this.time = 0
    this.speed = 1
    this.loop = false
    this.playing = false
    this.moving = false
    this.interval = null
    this.point = null
    this.sample = null
    this.hovered = null
    this.dark = false
    this.opacities = {}
    this.layers = new Set()
    this.marks = {}
    this.said = 0 // messages that change what the server knows as well
    this.scenes = new Map()
    this.stamps = new Map()
    this.generation = 0
    this.element = make("div", { class: fixed ? "stage fixed" : "stage" })
    this.headline = make("header", { class: "headline" })
    this.row = make("div", { class: "row" })
    this.left = make("div", { class: "left" })
    this.board = make("div", { class: "board" })
    this.line = new TimeLine(this)
    this.legend = new Legend(this)
    this.more = make("div", { class: "more", role: "group", "aria-label": "Look closer" })
    this.more.append(make("span", {}, "Look closer:"))
    for (const [what, text, doc] of MORE) {
      const button = make("button", { type: "button", title: doc }, text)
      button.what = what
      button.onclick = () => {
        const on = button.getAttribute("aria-pressed") !== "true"
        this.say({ kind: "open", what, on })
        if (on) setTimeout(() => this.more.scrollIntoView({ block: "center", behavior: "smooth" }), 300)
      }
      this.more.append(button)
    }
    this.row.append(this.left, this.legend.element)
    this.flash = make("div", { class: "flash", role: "status", hidden: "" })
    this.keys = this.shortcuts()
    this.settings = make("button", { type: "button", class: "settings" }, "Rule and settings")
    this.settings.onclick = () => this.openSettings?.()
    this.more.prepend(this.settings)
    this.words = new Words(this)
    const words = make("button", { type: "button", class: "words-button", title: "What the words mean" }, "Words")
    words.onclick = () => this.words.open()
    this.more.append(words)
    this.left.append(this.board, this.line.element, this.legend.key, this.more)
    this.element.append(make("style", {}, STYLE), this.headline, this.row, this.flash, this.keys, this.words.element)
    this.headline.append(make("p", {}, "Preparing the first picture …"))
    this.row.style.visibility = "hidden" // until there is something in it
    root.append(this.element)
    this.watch()
  }

  // What is set from outside

  set(name, value) {
    if (name.startsWith("run_")) {
      this.runs[name] = value
      this.generation++
      const panel = this.panels[Number(name.slice(4)) - 1]
      if (panel) this.give(panel)
    } else if (name.startsWith("scene_")) this.keepScene(Number(name.slice(6)), value)
    else if (name.startsWith("arrows_")) {
      const panel = this.panels[Number(name.slice(7)) - 1]
      this.runs[name] = value
      if (panel) panel.arrows = value
    } else if (name === "board") this.setBoard(value)
    else if (name === "legend") {
      this.legended = value
      this.legend.show(value)
    } else if (name === "headline") this.setHeadline(value)
    else if (name === "marks") this.marks = value
    else if (name === "status") this.setStatus(value)
    else if (name === "looks") this.looks = value
    else if (name === "words") this.words.set(value)
    this.redraw()
  }

  setBoard(board) {
    const { panels } = board
    while (this.panels.length > panels.length) this.panels.pop().element.remove()
    while (this.panels.length < panels.length) {
      const panel = new PanelView(this, this.panels.length)
      this.panels.push(panel)
      this.board.append(panel.element)
      this.give(panel)
    }
    this.panels.forEach((panel, i) => {
      panel.scene = panels[i].scene
      panel.describe(panels[i], panels.length, board.selected === i)
    })
    this.layers = new Set(board.layers)
    this.home = board.home
    const changed = this.levels.join() !== board.levels.join()
    const share = this.levels.length > 1 ? this.time / (this.levels.length - 1) : 1
    this.levels = board.levels
    if (changed) this.time = share * (this.levels.length - 1)
    if (board.said === this.said) {
      this.base = board.window
      this.following = board.following
      if (!this.playing && !this.scrubbing) this.time = board.step
      this.interval = board.interval
      this.point = board.point
      this.sample = board.sample
      this.opacities = { ...board.opacity }
    }
    for (const button of this.more.querySelectorAll("button:not(.words-button, .settings)")) {
      const on = board.open[button.what]
      button.hidden = on === null || on === undefined
      button.setAttribute("aria-pressed", String(on !== false))
      if (button.what === "sample") button.textContent = `Sample ${on}, step by step`
    }
    this.boarded = board
    this.row.style.visibility = ""
    this.arrange()
  }

  give(panel) {
    panel.run = this.runs[`run_${panel.index + 1}`] ?? null
    if (panel.run && !panel.run.x) panel.run = null
    panel.arrows = this.runs[`arrows_${panel.index + 1}`] ?? null
  }

  setHeadline({ title, text, numbers, verdict, scene }) {
    const words = make("p", {}, `${text} `)
    if (verdict && !verdict.href) words.append(make("span", { class: "verdict" }, verdict.text))
    else if (verdict) words.append(make("a", { href: verdict.href, class: "verdict" }, verdict.text))
    const many = numbers.some(({ values }) => values.length > 2)
    const figures = make("div", { class: many ? "numbers many" : "numbers" })
    for (const { label, doc, values, truth, key } of numbers) {
      const cell = make("div", { title: doc })
      const name = make("button", { type: "button", class: "term" }, label)
      name.onclick = () => this.explain(key)
      const row = make("div", { class: "values" })
      values.forEach(({ text: shown, letter, word }, i) => {
        if (i && !many) row.append(make("span", { class: "arrow" }, "→"))
        const value = make("span", { class: "value" })
        const number = make("b")
        if (many) number.append(make("sup", { class: `letter-${LETTERS.indexOf(letter)}` }, letter))
        number.append(shown)
        value.append(number, make("i", { class: word }, word || "\u00a0"))
        row.append(value)
      })
      const label_row = make("div", { class: "label" })
      label_row.append(name, make("span", { class: "truth" }, truth))
      cell.append(label_row, row)
      figures.append(cell)
    }
    const heading = make("div", { class: "lead" })
    heading.append(make("h1", {}, title), make("div", { class: "scene" }, scene))
    const top = make("div", { class: "top" })
    top.append(heading, figures)
    this.headline.replaceChildren(top, words)
  }

  setStatus({ busy, coarse }) {
    this.element.classList.toggle("busy", Boolean(busy))
    document.documentElement.style.setProperty("--toyguide-busy", busy ? 1 : 0)
    document.documentElement.style.setProperty("--toyguide-coarse", coarse ? 1 : 0)
  }

  // Scenes: the layers of the panels at the noise levels that have been sent

  keepScene(index, scene) {
    if (!scene || !("step" in scene)) return
    const known = this.scenes.get(index)
    if (!known || known.key !== scene.key) this.scenes.set(index, { key: scene.key, steps: new Map(), still: scene.still })
    const kept = this.scenes.get(index)
    if (scene.still) kept.still = scene.still
    kept.steps.delete(scene.step)
    kept.steps.set(scene.step, scene)
    if (kept.steps.size > KEPT) kept.steps.delete(kept.steps.keys().next().value)
  }

  /** The layers nearest to the noise level that is shown. */
  sceneAt(index) {
    const kept = this.scenes.get(index)
    if (!kept) return null
    const want = Math.min(Math.round(this.time), this.levels.length - 2)
    if (kept.steps.has(want)) return kept.steps.get(want)
    let best = null
    for (const step of kept.steps.keys()) if (best === null || Math.abs(step - want) < Math.abs(best - want)) best = step
    return kept.steps.get(best)
  }

  stillOf(index) {
    return this.scenes.get(index)?.still ?? { curves: {} }
  }

  bandsOf(scene) {
    const key = this.dark + scene.bands
    if (scene.canvas?.key !== key) scene.canvas = { key, canvas: bandsCanvas(scene.image, scene.pixels, this.look().bands[scene.bands]) }
    return scene.canvas.canvas
  }

  // What the panels ask

  look() {
    return this.looks[this.dark ? "dark" : "light"]
  }
  sigma() {
    return sigmaAt(this.levels, this.time)
  }
  window() {
    return this.following ? followed(this.base, this.home, this.sigma()) : this.base
  }
  shows(layer) {
    return this.layers.has(layer)
  }
  opacity(layer) {
    return this.opacities[layer] ?? 1
  }
  /** What changes the look of lines. */
  inks() {
    return `${this.dark}${[...this.layers].join()}${JSON.stringify(this.opacities)}`
  }
  stamp(shape, radius, rim, fill, halo) {
    const ratio = window.devicePixelRatio || 1
    const key = [shape, radius, rim, fill, halo, ratio].join()
    if (!this.stamps.has(key)) this.stamps.set(key, stamp(shape, radius, rim, fill, halo, ratio))
    return this.stamps.get(key)
  }

  // Time

  toggle() {
    if (this.playing) return this.pause()
    if (this.time >= this.levels.length - 1) this.time = 0
    this.playing = true
    this.before = null
    this.say({ kind: "step", value: Math.round(this.time), playing: true })
    this.redraw()
  }

  pause() {
    if (!this.playing) return
    this.playing = false
    this.go(Math.round(this.time))
  }

  go(step) {
    this.playing = false
    this.scrubbing = false
    this.time = Math.min(Math.max(step, 0), this.levels.length - 1)
    this.touch()
    this.tell({ kind: "step", value: this.time, playing: false })
    this.redraw()
  }

  scrub(time) {
    this.scrubbing = true
    this.time = Math.min(Math.max(time, 0), this.levels.length - 1)
    this.touch()
    this.sayStep()
    this.redraw()
  }

  advance(now) {
    const last = this.levels.length - 1
    if (this.before !== null) this.time += ((now - this.before) / 1000 / DURATION) * last * this.speed
    this.before = now
    if (this.time >= last) {
      if (this.loop) this.time = 0
      else return this.go(last)
    }
    this.sayStep()
  }

  /** Tell the server of a step that is passed, so that it sends the layers there. */
  sayStep() {
    const step = Math.round(this.time)
    if (step === this.saidStep) return
    this.saidStep = step
    this.tell({ kind: "step", value: step, playing: this.playing })
  }

  // What a visitor does

  say(message) {
    this.send({ ...message, said: this.said })
  }
  /** Say something that is shown here already: what the server says about it is old until it has heard of it. */
  tell(message) {
    this.said++
    this.say(message)
  }
  look_at(window) {
    const sigma = this.sigma()
    const base = this.following ? unfollowed(window, this.home, sigma) : window
    this.following = this.following && base !== null
    this.base = base ?? window
    this.touch()
    this.tell({ kind: "window", value: this.base, following: this.following })
    this.redraw()
  }
  zoom(factor, u, v) {
    const [left, bottom, right, top] = this.window()
    const wide = (right - left) * factor
    if (wide < 1e-3 || wide > 1e3) return
    const at = (edge, middle) => middle + (edge - middle) * factor
    this.look_at([at(left, u), at(bottom, v), at(right, u), at(top, v)])
  }
  goHome() {
    this.base = this.home
    this.following = true
    this.touch()
    this.tell({ kind: "home" })
    this.redraw()
  }
  setFollowing(following) {
    this.base = following ? this.base : this.window()
    this.following = following
    this.touch()
    this.tell({ kind: "window", value: this.base, following })
    this.redraw()
  }
  putPoint(point, held) {
    if (this.fixed) return
    this.point = point
    this.tell({ kind: "point", value: point, held })
    this.redraw()
  }
  follow(sample) {
    this.sample = sample
    this.hint(`Sample ${sample}: its path is lit in every panel; its terms, step by step, are below`)
    this.tell({ kind: "sample", value: sample })
    this.redraw()
  }
  setEnd(which, level, held) {
    const ends = [...this.interval]
    ends[which] = Number(Math.min(Math.max(level, 0), this.levels[0] * 2).toPrecision(3))
    if (ends[0] >= ends[1]) return
    this.interval = ends
    this.tell({ kind: "interval", value: ends, held })
    this.redraw()
  }
  setOpacity(layer, share, done) {
    this.opacities[layer] = share
    if (done) this.tell({ kind: "opacity", value: { ...this.opacities } })
    this.redraw()
  }
  explain(word) {
    this.words.open(word)
  }
  hint(text) {
    this.flash.textContent = text
    this.flash.hidden = false
    clearTimeout(this.hinted)
    this.hinted = setTimeout(() => (this.flash.hidden = true), 2600)
  }

  // Drawing

  /** The view has moved: lines are drawn quickly until it rests. */
  touch() {
    this.moving = true
    for (const panel of this.panels) panel.tip.hidden = true
    clearTimeout(this.resting)
    this.resting = setTimeout(() => {
      this.moving = this.playing
      this.redraw()
    }, REST)
  }

  redraw() {
    if (this.frame) return
    this.frame = requestAnimationFrame((now) => {
      this.frame = null
      if (this.gone || !this.looks) return
      if (this.playing) {
        this.touch()
        this.advance(now)
      }
      for (const panel of this.panels) if (panel.side) panel.draw()
      this.line.draw()
      this.frames = (this.frames ?? 0) + 1
      if (this.playing) this.redraw()
    })
  }

  /** Lay the panels out as large as they fit beside the legend and above the time line. */
  arrange() {
    const count = this.panels.length
    const width = this.left.clientWidth
    if (!count || !width) return
    const top = this.board.getBoundingClientRect().top + window.scrollY
    const room = Math.max(window.innerHeight - top - 96, 320)
    let [best, columns, chosen] = [0, 1, 0]
    for (let across = 1; across <= count; across++) {
      const down = Math.ceil(count / across)
      const tall = (room - (down - 1) * 4) / down - 30
      const side = Math.min((width - (across - 1) * 10) / across, tall)
      // Side by side compares better than one above the other; a row with a gap less well.
      const worth = side * (1 + 0.1 * (across - 1)) * (count % across ? 0.7 : 1)
      if (worth > best + 1) [best, columns, chosen] = [worth, across, side]
    }
    const side = Math.floor(Math.max(Math.min(chosen, width), 150))
    // As tall as there is room for, unless something is open below.
    const open = Object.values(this.boarded?.open ?? {}).some(Boolean)
    const free = open ? 0 : innerHeight - this.row.getBoundingClientRect().top - window.scrollY - 8
    this.legend.element.style.maxHeight = innerWidth < 1100 ? "" : `${Math.max(this.left.offsetHeight, free, 420)}px`
    this.board.style.gridTemplateColumns = `repeat(${columns}, ${side}px)`
    for (const panel of this.panels) panel.resize(side, window.devicePixelRatio || 1)
    this.redraw()
  }

  setDark(dark) {
    this.dark = dark
    this.look().panels.forEach((colour, i) => this.element.style.setProperty(`--p${i}`, colour))
    this.element.classList.toggle("dark", dark)
    const inks = getComputedStyle(this.element)
    for (const name of ["good", "bad"]) // for the tables below the stage
      document.documentElement.style.setProperty(`--toyguide-${name}`, inks.getPropertyValue(`--${name}`))
    for (const [light, inTheDark] of Object.entries(this.looks?.swap ?? {})) {
      const colour = dark ? inTheDark : light
      document.documentElement.style.setProperty(`--toyguide-${light.slice(1)}`, colour)
    }
    if (this.legended) this.legend.show(this.legended)
    this.redraw()
  }

  watch() {
    this.sized = new ResizeObserver(() => this.arrange())
    this.sized.observe(this.left)
    this.resized = () => this.arrange()
    addEventListener("resize", this.resized)
    if (innerWidth < 1100) this.legend.fold(true)
    this.typed = (event) => this.shortcut(event)
    document.addEventListener("keydown", this.typed)
  }

  shortcut(event) {
    const at = event.composedPath()[0]
    const typing = at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName ?? "")
    if (event.key === "Escape") {
      this.keys.close()
      if (this.point) this.say({ kind: "point", value: null, held: false })
      if (this.sample !== null) this.say({ kind: "sample", value: null })
      return
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return
    const pressed = at.tagName === "BUTTON"
    const number = Number(event.key)
    if (event.key === " " && !pressed) this.toggle()
    else if (event.key === ",") this.go(Math.round(this.time) - 1)
    else if (event.key === ".") this.go(Math.round(this.time) + 1)
    else if (event.key === "?") this.keys.open ? this.keys.close() : this.keys.showModal()
    else if (number >= 1 && number <= this.panels.length) this.say({ kind: "select", panel: number - 1 })
    else return
    event.preventDefault()
  }

  shortcuts() {
    const dialog = make("dialog", { class: "keys", "aria-label": "Keyboard shortcuts" })
    dialog.append(make("h2", {}, "Keyboard"))
    const list = make("dl")
    for (const [key, text] of [
      ["space", "play, pause, replay"],
      [", .", "one step back, one step on"],
      ...(this.fixed ? [] : [["1 … 4", "choose the panel whose settings are shown"]]),
      ["arrow keys", "in a plot: move the view; on the time line: step"],
      ["+ − 0", "in a plot: zoom in, zoom out, show all"],
      ...(this.fixed ? [] : [["Enter", "in a plot: look into its middle"]]),
      ["Escape", this.fixed ? "close the followed sample" : "close the inspected point and the followed sample"],
      ["?", "this list"],
    ])
      list.append(make("dt", {}, key), make("dd", {}, text))
    const close = make("button", { type: "button" }, "Close")
    close.onclick = () => dialog.close()
    dialog.append(list, close)
    return dialog
  }

  destroy() {
    this.gone = true
    this.sized.disconnect()
    removeEventListener("resize", this.resized)
    document.removeEventListener("keydown", this.typed)
  }
}

function createStage(root, send, fixed = false) {
  return new Stage(root, send, fixed)
}

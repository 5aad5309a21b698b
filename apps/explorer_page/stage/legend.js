// The layers: what is drawn, how it looks, and one sentence about each. It is the legend too.

const SWATCH = { width: 30, height: 14 }

class Legend {
  constructor(stage) {
    this.stage = stage
    this.element = make("aside", { class: "legend", "aria-label": "Layers and legend" })
    this.toggle = make("button", { type: "button", class: "fold", "aria-expanded": "true" }, "Layers")
    this.toggle.onclick = () => this.fold(!this.folded)
    this.body = make("div", { class: "body" })
    this.element.append(this.toggle, this.body)
    this.rows = new Map()
    this.key = make("div", { class: "key", "aria-hidden": "true" }) // what is on, while the legend is folded
  }

  fold(folded) {
    this.folded = folded
    this.toggle.setAttribute("aria-expanded", String(!folded))
    this.element.classList.toggle("folded", folded)
    this.key.hidden = !folded
    this.stage.arrange()
  }

  /** Write the legend anew where it has changed. */
  show(legend) {
    const order = legend.groups.map((g) => [g.title, g.rows.map((row) => row.key)]).concat([legend.bands.options])
    const structure = JSON.stringify(order)
    if (structure !== this.structure) {
      this.structure = structure
      this.build(legend)
    }
    const { bands } = legend
    this.bands.value = bands.value
    this.bandsNote.textContent = bands.note
    this.bandsOpacity.hidden = bands.value === "none"
    this.bandsOpacity.value = this.stage.opacity("bands")
    this.source.value = legend.source
    for (const row of legend.groups.flatMap((g) => g.rows)) {
      const parts = this.rows.get(row.key)
      parts.box.checked = row.on
      parts.note.textContent = row.note || row.doc
      parts.opacity.hidden = !row.on
      parts.opacity.value = this.stage.opacity(row.key)
      parts.row.classList.toggle("on", row.on)
      parts.row.hidden = row.hidden
    }
    this.levels.textContent = legend.level
    this.key.hidden = !this.folded
    const on = legend.groups.flatMap((g) => g.rows).filter((row) => row.on && !row.hidden)
    this.key.replaceChildren(
      ...on.map((row) => {
        const item = make("span")
        const swatch = make("canvas")
        paintSwatch(fresh(swatch, SWATCH.width, SWATCH.height), row.key, this.stage.look())
        item.append(swatch, row.key === "samples" ? "ends inside, outside the 99 % region" : row.title)
        return item
      }),
    )
    this.legend = legend
    this.paint()
  }

  build(legend) {
    const { stage } = this
    this.rows.clear()
    this.body.replaceChildren()
    const head = make("div", { class: "group" })
    head.append(make("h3", {}, "Background"))
    this.bands = make("select", { "aria-label": "Background" })
    for (const [key, title] of legend.bands.options) this.bands.append(make("option", { value: key }, title))
    this.bands.onchange = () => stage.say({ kind: "bands", value: this.bands.value })
    this.ramp = make("canvas", { class: "ramp", "aria-hidden": "true" })
    this.bandsNote = make("p", { class: "note" })
    this.bandsOpacity = this.slider("bands", "Background")
    const line = make("div", { class: "line" })
    line.append(this.bands, this.bandsOpacity)
    head.append(line, this.ramp, this.bandsNote)
    this.body.append(head)
    for (const group of legend.groups) {
      const part = make("div", { class: "group" })
      part.append(make("h3", {}, group.title))
      for (const row of group.rows) part.append(this.row(row))
      if (group.title === "Fields") {
        const label = make("label", { class: "source" }, "taken from ")
        this.source = make("select", {})
        for (const [key, title] of legend.sources) this.source.append(make("option", { value: key }, title))
        this.source.onchange = () => stage.say({ kind: "source", value: this.source.value })
        label.append(this.source)
        part.append(label)
      }
      this.body.append(part)
    }
    this.levels = make("p", { class: "note level" })
    this.body.append(this.levels)
  }

  row({ key, title }) {
    const row = make("div", { class: "row" })
    const box = make("input", { type: "checkbox" })
    box.onchange = () => this.stage.say({ kind: "layer", layer: key, on: box.checked })
    const swatch = make("canvas", { class: "swatch", "aria-hidden": "true" })
    const label = make("label", {})
    label.append(box, swatch, make("span", {}, title))
    const note = make("p", { class: "note" })
    const opacity = this.slider(key, title)
    const line = make("div", { class: "line" })
    line.append(label, opacity)
    row.append(line, note)
    this.rows.set(key, { row, box, note, opacity, swatch })
    return row
  }

  slider(key, title) {
    const slider = make("input", { type: "range", min: 0.1, max: 1, step: 0.05, "aria-label": `Opacity of ${title}`, title: "Opacity" })
    slider.oninput = () => this.stage.setOpacity(key, Number(slider.value), false)
    slider.onchange = () => this.stage.setOpacity(key, Number(slider.value), true)
    return slider
  }

  paint() {
    const look = this.stage.look()
    for (const [key, { swatch }] of this.rows) {
      const context = fresh(swatch, SWATCH.width, SWATCH.height)
      paintSwatch(context, key, look)
    }
    const { value, marks } = this.legend.bands
    const colours = look.bands[value] ?? []
    this.ramp.hidden = !colours.length
    if (!colours.length) return
    const width = 204
    const context = fresh(this.ramp, width, marks ? 30 : 14)
    const cell = width / colours.length
    colours.forEach((colour, i) => {
      context.fillStyle = colour
      context.fillRect(i * cell, 0, cell + 0.5, 12)
    })
    context.strokeStyle = look.frame
    context.strokeRect(0.5, 0.5, width - 1, 11)
    if (!marks) return
    context.fillStyle = look.quiet
    context.font = "12px Roboto, Arial, sans-serif"
    context.textBaseline = "top"
    marks.forEach(([at, text]) => {
      context.textAlign = at <= 0 ? "left" : at >= colours.length ? "right" : "center"
      context.fillText(text, Math.min(at, colours.length) * cell, 15)
    })
  }
}

/** A cleared canvas of so many pixels, sharp on any screen. */
function fresh(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1
  canvas.width = width * ratio
  canvas.height = height * ratio
  canvas.style.width = `${width}px`
  canvas.style.height = `${height}px`
  const context = canvas.getContext("2d")
  context.setTransform(ratio, 0, 0, ratio, 0, 0)
  context.clearRect(0, 0, width, height)
  return context
}

function paintSwatch(context, key, look) {
  const y = SWATCH.height / 2
  const line = (colour, width = 2, dash = [], from = 2, to = 28) => {
    context.strokeStyle = colour
    context.lineWidth = width
    context.setLineDash(dash)
    context.beginPath()
    context.moveTo(from, y)
    context.lineTo(to, y)
    context.stroke()
    context.setLineDash([])
  }
  const mark = (shape, x, colour, radius) => {
    context.fillStyle = colour
    context.strokeStyle = look.halo
    context.lineWidth = 2
    drawMark(context, shape, x, y, radius)
  }
  if (key === "samples") {
    mark("circle", 8, look.sample, 3)
    mark("triangle", 22, look.outlier, 4)
  } else if (key === "paths") line(look.path, 1)
  else if (key === "moves") {
    line(look.moved, 1, [], 2, 14)
    line(look.changed, 2, [], 16, 28)
  } else if (key === "critical") {
    mark("circle", 8, look.marks.modes, 4)
    mark("diamond", 22, look.marks.passes, 4)
  } else if (key === "saddles") {
    look.saddles.forEach((colour, i) => {
      context.fillStyle = colour
      context.fillRect(2 + (26 * i) / look.saddles.length, y - 2, 26 / look.saddles.length + 0.5, 4)
    })
  } else if (key === "score" || key === "guidance") {
    const colour = look[key]
    line(colour, 1.6, [], 4, 24)
    context.fillStyle = colour
    context.beginPath()
    context.moveTo(28, y)
    context.lineTo(21, y - 4)
    context.lineTo(21, y + 4)
    context.fill()
  } else if (look.lines[key]) line(look.lines[key].colour, look.lines[key].width + 0.6, look.lines[key].dash ?? [])
}

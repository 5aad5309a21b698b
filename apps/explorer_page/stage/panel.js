// One panel: a heading, a square canvas, and what the mouse does there.

const MOST_PATHS = 512 // more of them hide each other
const TAIL = 7 // steps of a path that are drawn while it plays
const NEAR = 9 // pixels from the mouse at which a sample is meant
const LINED = ["exact-lines", "main-lines", "guide-lines", "boundary", "score", "saddles"]
const MARKS = { modes: "circle", passes: "diamond", others: "square" }

class PanelView {
  constructor(stage, index) {
    this.stage = stage
    this.index = index
    this.run = null
    this.arrows = null
    this.scene = null
    this.rasters = new Map()
    this.element = make("section", { class: "panel" })
    this.heading = make("div", { class: "heading" })
    this.chooser = make("button", { class: "title", type: "button" })
    this.chooser.disabled = stage.fixed
    this.chooser.onclick = () => stage.say({ kind: "select", panel: index })
    this.sigma = make("span", { class: "sigma" })
    this.tools = make("span", { class: "tools" })
    for (const [kind, text] of [
      ["copy", `Copy panel ${LETTERS[index]}`],
      ["swap", `Swap panel ${LETTERS[index]} with the next`],
      ["remove", `Remove panel ${LETTERS[index]}`],
    ])
      this.tools.append(iconButton(kind, text, () => stage.say({ kind, panel: index })))
    this.heading.append(this.chooser, this.sigma, this.tools)
    this.canvas = make("canvas", { tabindex: 0, role: "application" })
    this.tip = make("div", { class: "tip", hidden: "" })
    this.note = make("div", { class: "why", hidden: "" })
    this.box = make("div", { class: "plot" })
    this.box.append(this.canvas, this.note, this.tip)
    this.element.append(this.heading, this.box)
    this.listen()
  }

  /** The panel's heading. */
  describe(panel, count, selected) {
    const letter = LETTERS[this.index]
    const several = count > 1
    this.chooser.innerHTML = ""
    if (several) this.chooser.append(make("b", { class: `letter letter-${this.index}` }, letter))
    const words = make("span", { class: "words" })
    words.append(make("span", { class: "rule" }, panel.title))
    if (panel.note) words.append(make("small", {}, panel.note))
    this.chooser.append(words)
    this.chooser.title = several && !this.stage.fixed ? `${panel.title}: click to set this panel's rule` : panel.title
    if (several && !this.stage.fixed) this.chooser.setAttribute("aria-pressed", String(selected))
    else this.chooser.removeAttribute("aria-pressed")
    this.element.classList.toggle("selected", several && selected && !this.stage.fixed)
    const [copy, swap, remove] = this.tools.children
    copy.hidden = count === LETTERS.length
    swap.hidden = this.index === count - 1
    remove.hidden = count === 1
    this.note.textContent = panel.empty || ""
    this.note.hidden = !panel.empty
    this.canvas.setAttribute(
      "aria-label",
      `Panel ${letter}: ${panel.title}. Arrow keys move the view, plus and minus zoom, 0 shows all${this.stage.fixed ? "" : ", Enter looks into its middle"}.`,
    )
  }

  resize(side, ratio) {
    if (this.side === side && this.ratio === ratio) return
    this.side = side
    this.ratio = ratio
    this.canvas.width = this.canvas.height = Math.round(side * ratio)
    this.canvas.style.width = this.canvas.style.height = `${side}px`
    this.element.style.width = `${side}px`
    this.rasters.clear()
  }

  /** Where this run is at the stage's noise level. */
  position() {
    return this.run ? positionAt(this.run.sigma, this.stage.sigma()) : 0
  }

  /** A sample's coordinates at a position, moved on a straight line between two steps. */
  place(i, position) {
    const { x, y, n, sigma } = this.run
    const k = Math.min(Math.floor(position), sigma.length - 1)
    const next = Math.min(k + 1, sigma.length - 1)
    const share = position - k
    const [a, b] = [k * n + i, next * n + i]
    return share ? [x[a] + share * (x[b] - x[a]), y[a] + share * (y[b] - y[a])] : [x[a], y[a]]
  }

  draw() {
    const { stage, side, ratio } = this
    const look = stage.look()
    const context = this.canvas.getContext("2d", { alpha: false })
    context.setTransform(ratio, 0, 0, ratio, 0, 0)
    context.fillStyle = look.ground
    context.fillRect(0, 0, side, side)
    const frame = (this.frame = new Frame(stage.window(), side))
    context.lineJoin = "round"
    const position = this.position()
    if (this.run) {
      const shown = digits(sigmaAt(this.run.sigma, Math.round(position)))
      this.sigma.textContent = `σ = ${stage.playing ? digits(sigmaAt(this.run.sigma, position)) : shown}`
    }
    const scene = this.scene && stage.sceneAt(this.scene)
    const still = this.scene && stage.stillOf(this.scene)
    if (scene) this.drawScene(context, frame, scene, still, look)
    if (this.run) {
      if (stage.shows("paths")) this.drawPaths(context, frame, position, look)
      if (stage.shows("guidance")) this.drawArrows(context, frame, look)
      if (stage.shows("moves") && this.index > 0) this.drawMoves(context, frame, position, look)
      if (stage.shows("samples")) this.drawSamples(context, frame, position, look)
    }
    if (scene && stage.shows("critical")) this.drawCritical(context, frame, scene, look)
    if (this.run && stage.sample !== null) this.drawFollowed(context, frame, position, look)
    this.drawPoint(context, frame, look)
    this.drawAxes(context, frame, look)
  }

  drawScene(context, frame, scene, still, look) {
    const stage = this.stage
    if (scene.image) {
      context.globalAlpha = stage.opacity("bands")
      drawBands(context, frame, stage.bandsOf(scene), scene.window)
      context.globalAlpha = 1
    }
    const calm = !stage.moving
    // While the view moves, lines are images of themselves, drawn once at the window where they will rest.
    const outlines = calm ? frame : new Frame(stage.base, this.side)
    this.drawRaster(context, frame, "still", still, outlines, (c, f) => this.drawCurves(c, f, still, STILL, look))
    if (!LINED.some((layer) => stage.shows(layer))) return
    const lines = calm ? frame : new Frame(scene.window, this.side)
    this.drawRaster(context, frame, "scene", scene, lines, (c, f) => {
      this.drawCurves(c, f, scene, LINES, look)
      this.drawFields(c, f, scene, look)
    })
  }

  /** Draw something that rarely changes from a bitmap, which is made anew when it has. */
  drawRaster(context, frame, name, what, own, paint) {
    const key = [this.stage.inks(), own.window.join(), this.side, this.ratio].join("|")
    let kept = this.rasters.get(name)
    if (!kept || kept.what !== what || kept.key !== key) {
      const canvas = kept ? kept.canvas : document.createElement("canvas")
      canvas.width = canvas.height = this.canvas.width
      const inner = canvas.getContext("2d")
      inner.setTransform(this.ratio, 0, 0, this.ratio, 0, 0)
      inner.lineJoin = "round"
      paint(inner, own)
      kept = { canvas, what, key, window: own.window }
      this.rasters.set(name, kept)
    }
    const [left, bottom, right, top] = kept.window
    const [x, y] = [frame.x(left), frame.y(top)]
    context.drawImage(kept.canvas, x, y, frame.x(right) - x, frame.y(bottom) - y)
  }

  drawCurves(context, frame, scene, names, look) {
    for (const [name, layer] of names) {
      const curves = scene.curves[name]
      if (!curves || !this.stage.shows(layer)) continue
      const pen = look.lines[name]
      context.globalAlpha = (pen.alpha ?? 1) * this.stage.opacity(layer)
      context.setLineDash([])
      if (pen.halo) {
        context.strokeStyle = look.halo
        context.lineWidth = pen.width + 2
        drawLines(context, frame, curves)
      }
      context.strokeStyle = pen.colour
      context.lineWidth = pen.width
      context.setLineDash(pen.dash ?? [])
      drawLines(context, frame, curves)
    }
    context.setLineDash([])
    context.globalAlpha = 1
  }

  drawFields(context, frame, scene, look) {
    const stage = this.stage
    if (scene.score && stage.shows("score")) {
      context.globalAlpha = stage.opacity("score")
      context.strokeStyle = look.score
      context.lineWidth = 1.1
      drawStrokes(context, frame, scene.score)
    }
    if (scene.saddles && stage.shows("saddles")) {
      context.globalAlpha = stage.opacity("saddles")
      context.lineWidth = 2
      const { value, top } = scene.saddles
      const ramp = look.saddles
      const colour = (i) => ramp[Math.max(0, Math.min(ramp.length - 1, Math.floor((value[i] / top) * ramp.length)))]
      drawStrokes(context, frame, scene.saddles, colour)
    }
    context.globalAlpha = 1
  }

  drawArrows(context, frame, look) {
    if (!this.arrows || !this.arrows.x0) return
    const stage = this.stage
    context.globalAlpha = stage.opacity("guidance")
    context.strokeStyle = look.halo
    context.lineWidth = 2.8
    drawStrokes(context, frame, this.arrows)
    context.strokeStyle = look.guidance
    context.lineWidth = 1.3
    drawStrokes(context, frame, this.arrows)
    context.globalAlpha = 1
  }

  drawPaths(context, frame, position, look) {
    const { stage, run } = this
    const n = Math.min(run.n, MOST_PATHS)
    const steps = run.sigma.length
    context.strokeStyle = look.path
    context.lineWidth = 0.8
    if (!stage.moving) {
      this.drawRaster(context, frame, "paths", run, frame, (c, f) => {
        c.strokeStyle = look.path
        c.lineWidth = 0.8
        // Later steps are closer to the data and matter more: three shades, from the noise on.
        for (let part = 0; part < 3; part++) {
          c.globalAlpha = stage.opacity("paths") * [0.1, 0.2, 0.38][part]
          const [from, to] = [Math.floor((part * (steps - 1)) / 3), Math.floor(((part + 1) * (steps - 1)) / 3)]
          this.trace(c, f, n, from, to)
        }
      })
      return
    }
    context.globalAlpha = 0.4 * stage.opacity("paths")
    this.trace(context, frame, n, Math.max(0, Math.floor(position) - TAIL), Math.floor(position), position)
    context.globalAlpha = 1
  }

  /** The paths of the first n samples between two steps, and on to a position between steps. */
  trace(context, frame, n, from, to, position = to) {
    const { x, y } = this.run
    const all = this.run.n
    context.beginPath()
    for (let i = 0; i < n; i++) {
      context.moveTo(frame.x(x[from * all + i]), frame.y(y[from * all + i]))
      for (let k = from + 1; k <= to; k++) context.lineTo(frame.x(x[k * all + i]), frame.y(y[k * all + i]))
      if (position > to) {
        const [u, v] = this.place(i, position)
        context.lineTo(frame.x(u), frame.y(v))
      }
    }
    context.stroke()
  }

  /** From where each sample of the first panel is to where it is here; heavy where it ends in another branch. */
  drawMoves(context, frame, position, look) {
    const other = this.stage.panels[0]
    if (!other.run || !other.run.n) return
    const n = Math.min(this.run.n, other.run.n)
    const there = other.position()
    for (const changed of [false, true]) {
      context.globalAlpha = this.stage.opacity("moves") * (changed ? 0.9 : 0.45)
      context.strokeStyle = changed ? look.changed : look.moved
      context.lineWidth = changed ? 1.4 : 0.9
      context.beginPath()
      for (let i = 0; i < n; i++) {
        if ((this.run.branch[i] !== other.run.branch[i]) !== changed) continue
        const [a, b] = [other.place(i, there), this.place(i, position)]
        context.moveTo(frame.x(a[0]), frame.y(a[1]))
        context.lineTo(frame.x(b[0]), frame.y(b[1]))
      }
      context.stroke()
    }
    context.globalAlpha = 1
  }

  /** The samples, as pixels on a canvas of their own that lies over this one. */
  drawSamples(context, frame, position, look) {
    const { stage, run, side, ratio } = this
    const radius = (run.n > 1500 ? 1.75 : run.n > 600 ? 2.1 : 2.5) * (side < 300 ? 0.85 : 1)
    const rim = run.n > 1500 ? 0.35 : 0.9
    const marks = [
      stage.stamp("circle", radius, rim, look.sample, look.halo),
      stage.stamp("triangle", radius * 1.3, rim, look.outlier, look.halo),
    ]
    const { image, words, canvas, inner } = this.pixels()
    words.fill(0)
    const { x, y, n, outlier, sigma } = run
    const k = Math.min(Math.floor(position), sigma.length - 1)
    const a = k * n
    const b = Math.min(k + 1, sigma.length - 1) * n
    const share = position - k
    const scale = frame.scale * ratio
    const [left, , , top] = frame.window
    const width = canvas.width
    for (const late of [0, 1]) {
      for (let i = 0; i < n; i++) {
        if (outlier[i] !== late) continue
        const px = (x[a + i] + share * (x[b + i] - x[a + i]) - left) * scale
        const py = (top - y[a + i] - share * (y[b + i] - y[a + i])) * scale
        if (px > -9 && px < width + 9 && py > -9 && py < width + 9) press(words, width, marks[late], px, py)
      }
    }
    inner.putImageData(image, 0, 0)
    context.globalAlpha = stage.opacity("samples")
    context.drawImage(canvas, 0, 0, side, side)
    context.globalAlpha = 1
  }

  /** An image as large as the panel, and a canvas to bring it onto another one. */
  pixels() {
    const width = this.canvas.width
    if (this.kept?.canvas.width !== width) {
      const canvas = document.createElement("canvas")
      canvas.width = canvas.height = width
      const inner = canvas.getContext("2d", { willReadFrequently: true })
      const image = inner.createImageData(width, width)
      this.kept = { canvas, inner, image, words: new Uint32Array(image.data.buffer) }
    }
    return this.kept
  }

  drawCritical(context, frame, scene, look) {
    const found = scene.critical
    if (!found) return
    context.lineCap = "round"
    for (const [width, colour] of [
      [5, look.halo],
      [2.6, look.unstable],
    ]) {
      context.lineWidth = width
      context.strokeStyle = colour
      drawStrokes(context, frame, found.unstable)
    }
    context.lineCap = "butt"
    context.strokeStyle = look.halo
    context.lineWidth = 2.4
    for (const [name, shape] of Object.entries(MARKS)) {
      const { x, y } = found[name]
      context.fillStyle = look.marks[name]
      for (let i = 0; i < x.length; i++) drawMark(context, shape, frame.x(x[i]), frame.y(y[i]), 5)
    }
    context.fillStyle = look.ground
    context.font = "700 10px Roboto, Arial, sans-serif"
    context.textAlign = "center"
    context.textBaseline = "middle"
    found.others.text.forEach((text, i) =>
      context.fillText(text, frame.x(found.others.x[i]), frame.y(found.others.y[i]) + 0.5),
    )
  }

  /** The whole path of the sample that is followed, lit. */
  drawFollowed(context, frame, position, look) {
    const { run, stage } = this
    const i = stage.sample
    if (i >= run.n) return
    const steps = run.sigma.length
    for (const [width, colour] of [
      [4.5, look.halo],
      [2, look.way],
    ]) {
      context.lineWidth = width
      context.strokeStyle = colour
      context.beginPath()
      for (let k = 0; k < steps; k++) context.lineTo(frame.x(run.x[k * run.n + i]), frame.y(run.y[k * run.n + i]))
      context.stroke()
    }
    context.fillStyle = look.way
    for (let k = 0; k < steps; k++) {
      context.beginPath()
      context.arc(frame.x(run.x[k * run.n + i]), frame.y(run.y[k * run.n + i]), 1.8, 0, 2 * Math.PI)
      context.fill()
    }
    const [u, v] = this.place(i, position)
    context.strokeStyle = look.halo
    context.lineWidth = 3
    context.fillStyle = run.outlier[i] ? look.outlier : look.way
    drawMark(context, run.outlier[i] ? "triangle" : "circle", frame.x(u), frame.y(v), 5)
  }

  /** The inspected point with its arrows, the path from there, and the sample under the mouse. */
  drawPoint(context, frame, look) {
    const { stage } = this
    const marks = stage.marks
    const mine = marks.panels?.[this.index]
    if (mine) {
      context.lineCap = "round"
      if (mine.way) {
        for (const [width, colour] of [
          [4.5, look.halo],
          [1.8, look.way],
        ]) {
          context.lineWidth = width
          context.strokeStyle = colour
          drawLines(context, frame, mine.way)
        }
        const end = mine.way.x.length - 1
        context.fillStyle = look.way
        context.strokeStyle = look.halo
        drawMark(context, "circle", frame.x(mine.way.x[end]), frame.y(mine.way.y[end]), 3.5)
      }
      if (mine.arrows) {
        context.lineWidth = 4.5
        context.strokeStyle = look.halo
        drawStrokes(context, frame, mine.arrows)
        context.lineWidth = 2.2
        drawStrokes(context, frame, mine.arrows, (i) => look.terms[mine.arrows.kind[i]])
        mine.arrows.names.forEach((name, i) => {
          const { x, y, kinds } = mine.arrows
          drawLabel(context, name, frame.x(x[i]), frame.y(y[i]), look.terms[kinds[i]], look.ground)
        })
      }
      context.lineCap = "butt"
    }
    const point = stage.point
    if (point) {
      for (const [width, colour] of [
        [4, look.halo],
        [1.8, look.way],
      ]) {
        context.lineWidth = width
        context.strokeStyle = colour
        context.beginPath()
        context.arc(frame.x(point[0]), frame.y(point[1]), 6, 0, 2 * Math.PI)
        context.stroke()
      }
    }
    if (stage.hovered !== null && this.run && stage.hovered < this.run.n) {
      const [u, v] = this.place(stage.hovered, this.position())
      context.lineWidth = 2
      context.strokeStyle = look.way
      context.beginPath()
      context.arc(frame.x(u), frame.y(v), 6.5, 0, 2 * Math.PI)
      context.stroke()
    }
  }

  drawAxes(context, frame, look) {
    context.font = "12px Roboto, Arial, sans-serif"
    const { window, side } = frame
    const few = side < 300 ? 3 : 5
    const minus = (text) => text.replace("-", "\u2212")
    const across = ticks(window[0], window[2], few)
    const up = ticks(window[1], window[3], few)
    const labels = across.values.map((value) => [minus(across.text(value)), frame.x(value), side - 10, "center"])
    labels.push(...up.values.map((value) => [minus(up.text(value)), 5, frame.y(value), "left"]))
    context.textBaseline = "middle"
    context.lineWidth = 3
    context.strokeStyle = look.ground
    context.fillStyle = look.quiet
    for (const [text, x, y, align] of labels) {
      const corner = align === "center" ? x < 34 || x > side - 14 : y < 10 || y > side - 22
      if (corner) continue
      context.textAlign = align
      context.strokeText(text, x, y)
      context.fillText(text, x, y)
    }
  }

  /** The sample that is drawn next to a pixel, or null. */
  nearest(px, py) {
    if (!this.run || !this.stage.shows("samples")) return null
    const position = this.position()
    let [best, found] = [NEAR * NEAR, null]
    for (let i = 0; i < this.run.n; i++) {
      const [u, v] = this.place(i, position)
      const distance = (this.frame.x(u) - px) ** 2 + (this.frame.y(v) - py) ** 2
      if (distance < best) [best, found] = [distance, i]
    }
    return found
  }

  listen() {
    const { stage, canvas } = this
    const pixel = (event) => {
      const box = canvas.getBoundingClientRect()
      return [event.clientX - box.left, event.clientY - box.top]
    }
    let grip = null // what a press has taken hold of
    const touches = new Map()
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return
      canvas.setPointerCapture(event.pointerId)
      const [x, y] = pixel(event)
      touches.set(event.pointerId, [x, y])
      const point = stage.point
      const held = point && Math.hypot(this.frame.x(point[0]) - x, this.frame.y(point[1]) - y) < 14
      grip = { kind: held ? "point" : "view", x, y, window: this.frame.window, moved: false }
    })
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = pixel(event)
      if (!grip) return this.hover(x, y)
      if (touches.size > 1) return this.pinch(touches, event, x, y)
      touches.set(event.pointerId, [x, y])
      if (!grip.moved && Math.hypot(x - grip.x, y - grip.y) < 4) return
      grip.moved = true
      if (grip.kind === "point") stage.putPoint([this.frame.u(x), this.frame.v(y)], true)
      else {
        const [du, dv] = [(grip.x - x) / this.frame.scale, (y - grip.y) / this.frame.scale]
        const [left, bottom, right, top] = grip.window
        stage.look_at([left + du, bottom + dv, right + du, top + dv])
      }
    })
    const release = (event) => {
      touches.delete(event.pointerId)
      if (!grip) return
      if (event.type === "pointercancel") {
        if (grip.kind === "point" && grip.moved) stage.putPoint(stage.point, false)
        return void (grip = null)
      }
      const [x, y] = pixel(event)
      if (grip.kind === "point" && grip.moved) stage.putPoint([this.frame.u(x), this.frame.v(y)], false)
      else if (!grip.moved) {
        const sample = this.nearest(x, y)
        if (sample !== null) stage.follow(sample)
        else stage.putPoint([this.frame.u(x), this.frame.v(y)], false)
      }
      grip = null
    }
    canvas.addEventListener("pointerup", release)
    canvas.addEventListener("pointercancel", release)
    canvas.addEventListener("pointerleave", () => grip || this.hover(null, null))
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return stage.hint("Hold Ctrl to zoom with the wheel")
        event.preventDefault()
        const [x, y] = pixel(event)
        stage.zoom(Math.exp(0.0022 * event.deltaY), this.frame.u(x), this.frame.v(y))
      },
      { passive: false },
    )
    canvas.addEventListener("keydown", (event) => {
      const [left, bottom, right, top] = this.frame.window
      const by = (right - left) / 10
      const ways = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, by], ArrowDown: [0, -by] }
      const [u, v] = [(left + right) / 2, (bottom + top) / 2]
      if (ways[event.key]) {
        const [du, dv] = ways[event.key]
        stage.look_at([left + du, bottom + dv, right + du, top + dv])
      } else if (event.key === "+" || event.key === "=") stage.zoom(0.8, u, v)
      else if (event.key === "-") stage.zoom(1.25, u, v)
      else if (event.key === "0") stage.goHome()
      else if (event.key === "Enter") stage.putPoint([u, v], false)
      else return
      event.preventDefault()
      event.stopPropagation()
    })
  }

  pinch(touches, event, x, y) {
    const others = [...touches].filter(([id]) => id !== event.pointerId)
    const [, other] = others[0]
    const before = touches.get(event.pointerId)
    const apart = (a) => Math.max(Math.hypot(a[0] - other[0], a[1] - other[1]), 1)
    const middle = [(x + other[0]) / 2, (y + other[1]) / 2]
    this.stage.zoom(apart(before) / apart([x, y]), this.frame.u(middle[0]), this.frame.v(middle[1]))
    touches.set(event.pointerId, [x, y])
  }

  /** Say what is under the mouse, and ring the same sample in every panel. */
  hover(x, y) {
    const found = x === null || this.stage.playing ? null : this.nearest(x, y)
    if (found !== this.stage.hovered) {
      this.stage.hovered = found
      this.stage.redraw()
    }
    this.tip.hidden = found === null
    if (found === null) return
    const [u, v] = this.place(found, this.position())
    const { logp, branch, outlier } = this.run
    const lines = [`sample ${found} at (${u.toFixed(3)}, ${v.toFixed(3)})`]
    lines.push(outlier[found] ? "ends outside the 99 % region" : `ends in branch ${branch[found]}`)
    lines.push(`log-density at the end ${Number.isFinite(logp[found]) ? logp[found].toFixed(2) : "none"}`)
    this.tip.innerText = lines.join("\n")
    this.tip.style.left = `${Math.min(x + 12, this.side - 190)}px`
    this.tip.style.top = `${y < this.side - 80 ? y + 14 : y - 66}px`
  }
}

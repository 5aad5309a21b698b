// The time line: play, step, and an axis of log sigma with the guidance interval and the size of each run's push.

const SPEEDS = [0.25, 0.5, 1, 2, 4]
const TICKS = [50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001]
const EDGE = 22 // pixels beside the axis
const DATA = 0.06 // of the axis' width: the stretch from the last positive noise level to 0
const HEIGHT = 66

class TimeLine {
  constructor(stage) {
    this.stage = stage
    this.element = make("div", { class: "timeline", role: "group", "aria-label": "Time line" })
    this.play = iconButton("play", "Play", () => stage.toggle())
    this.back = iconButton("back", "One step back", () => stage.go(Math.ceil(stage.time) - 1))
    this.next = iconButton("next", "One step on", () => stage.go(Math.floor(stage.time) + 1))
    this.speed = make("select", { "aria-label": "Speed", title: "Speed of playing" })
    for (const speed of SPEEDS) this.speed.append(make("option", { value: speed }, `${speed}×`))
    this.speed.value = "1"
    this.speed.onchange = () => (stage.speed = Number(this.speed.value))
    this.loop = iconButton("loop", "Play again and again", () => {
      stage.loop = !stage.loop
      this.loop.setAttribute("aria-pressed", String(stage.loop))
    })
    this.loop.setAttribute("aria-pressed", "false")
    this.follow = iconButton("follow", "The view follows the noise", () => stage.setFollowing(!stage.following))
    this.home = iconButton("home", "Show all of the data", () => stage.goHome())
    const buttons = make("div", { class: "buttons" })
    buttons.append(this.play, this.back, this.next, this.speed, this.loop, this.follow, this.home)
    this.axis = make("div", { class: "axis" })
    this.canvas = make("canvas", { "aria-hidden": "true" })
    this.handle = make("div", { class: "handle", role: "slider", tabindex: 0, "aria-label": "Noise level" })
    this.ends = [0, 1].map((i) =>
      make("div", { class: "end", role: "slider", tabindex: 0, "aria-label": ["Lower", "Upper"][i] + " end of the guidance interval" }),
    )
    this.axis.append(this.canvas, ...this.ends, this.handle)
    this.element.append(buttons, this.axis)
    this.listen()
  }

  /** Where a noise level is on the axis, in pixels. */
  x(sigma) {
    const { levels } = this.stage
    const width = this.width - 2 * EDGE
    const least = levels[levels.length - 2]
    const line = width * (1 - DATA)
    if (sigma < least) return EDGE + line + width * DATA * (1 - sigma / least)
    return EDGE + (line * Math.log(levels[0] / sigma)) / Math.log(levels[0] / least)
  }

  /** The noise level at a pixel of the axis. */
  sigma(x) {
    const { levels } = this.stage
    const width = this.width - 2 * EDGE
    const least = levels[levels.length - 2]
    const along = (x - EDGE) / (width * (1 - DATA))
    if (along > 1) return Math.max(0, least * (1 - (x - EDGE - width * (1 - DATA)) / (width * DATA)))
    return levels[0] * (least / levels[0]) ** Math.max(along, 0)
  }

  draw() {
    const { stage } = this
    const { levels } = stage
    if (levels.length < 2) return
    const box = this.axis.getBoundingClientRect()
    if (!box.width) return
    const ratio = window.devicePixelRatio || 1
    if (this.width !== box.width || this.ratio !== ratio) {
      this.width = box.width
      this.ratio = ratio
      this.canvas.width = Math.round(box.width * ratio)
      this.canvas.height = HEIGHT * ratio
      this.canvas.style.width = `${box.width}px`
      this.canvas.style.height = `${HEIGHT}px`
      this.drawn = null
    }
    const key = [stage.inks(), stage.generation, levels.join(), stage.interval?.join()].join("|")
    if (this.drawn !== key) this.paint((this.drawn = key), ratio)
    const last = levels.length - 1
    const at = Math.round(stage.time)
    this.handle.style.left = `${this.x(sigmaAt(levels, stage.time))}px`
    const said = `σ = ${digits(levels[at])}, step ${at} of ${last}`
    for (const [name, value] of [["valuemin", 0], ["valuemax", last], ["valuenow", at], ["valuetext", said]])
      this.handle.setAttribute(`aria-${name}`, value)
    this.ends.forEach((end, i) => {
      end.hidden = !stage.interval
      if (!stage.interval) return
      const level = stage.interval[i]
      end.style.left = `${this.x(Math.min(Math.max(level, 0), levels[0]))}px`
      for (const [name, value] of [["valuemin", 0], ["valuemax", levels[0]], ["valuenow", level], ["valuetext", `σ = ${digits(level)}`]])
        end.setAttribute(`aria-${name}`, value)
    })
    const done = stage.time >= last
    const [icon, text] = stage.playing ? ["pause", "Pause"] : done ? ["replay", "Replay"] : ["play", "Play"]
    if (this.play.icon !== icon) {
      setIcon(this.play, icon)
      this.play.setAttribute("aria-label", text)
      this.play.title = `${text} (space)`
    }
    this.follow.setAttribute("aria-pressed", String(stage.following))
    this.home.hidden = stage.following && stage.base.join() === stage.home.join()
  }

  paint(_key, ratio) {
    const { stage, canvas, width } = this
    const { levels } = stage
    const look = stage.look()
    const context = canvas.getContext("2d")
    context.setTransform(ratio, 0, 0, ratio, 0, 0)
    context.clearRect(0, 0, width, HEIGHT)
    const line = 36
    const [first, end] = [this.x(levels[0]), this.x(0)]
    if (stage.interval) {
      const [low, high] = stage.interval.map((level) => this.x(Math.min(Math.max(level, 0), levels[0])))
      context.fillStyle = look.interval
      context.fillRect(high, 4, low - high, line - 4)
    }
    this.paintPushes(context, look, line)
    context.strokeStyle = look.quiet
    context.lineWidth = 1.5
    context.beginPath()
    context.moveTo(first, line + 0.5)
    context.lineTo(end, line + 0.5)
    context.stroke()
    context.lineWidth = 1
    context.globalAlpha = 0.55
    context.beginPath()
    for (const level of levels) {
      const x = Math.round(this.x(level)) + 0.5
      context.moveTo(x, line - 3)
      context.lineTo(x, line + 1)
    }
    context.stroke()
    context.globalAlpha = 1
    context.fillStyle = look.quiet
    context.font = "12px Roboto, Arial, sans-serif"
    context.textAlign = "center"
    context.textBaseline = "top"
    context.beginPath()
    let free = -Infinity
    const least = levels[levels.length - 2]
    for (const level of TICKS) {
      if (level > levels[0] * 1.001 || level < least * 0.999) continue
      const x = Math.round(this.x(level)) + 0.5
      context.moveTo(x, line)
      context.lineTo(x, line + 6)
      const half = context.measureText(String(level)).width / 2
      if (x - half < free + 8 || x + half > end - 34) continue
      context.fillText(String(level), x, line + 14)
      free = x + half
    }
    context.stroke()
    context.textAlign = "right"
    context.fillText("data", Math.min(end + 16, width), line + 14)
    context.textAlign = "left"
    context.fillText("σ", 2, line + 14)
    context.textBaseline = "alphabetic"
    if (stage.interval) {
      const [low, high] = stage.interval
      context.fillStyle = look.sample
      context.textAlign = "right"
      context.fillText(digits(high), this.x(Math.min(high, levels[0])) - 7, 14)
      context.textAlign = "left"
      context.fillText(digits(low), this.x(low) + 7, 14)
    } else if (this.pushed) {
      context.textAlign = "right"
      context.fillText("size of the push", end, 12)
    }
  }

  /** The root mean square push of each run over the noise levels, on a scale of its own. */
  paintPushes(context, look, line) {
    const runs = this.stage.panels.map((panel) => panel.run)
    this.pushed = false
    const highest = Math.max(...runs.flatMap((run) => (run ? [...run.push].filter(Number.isFinite) : [0])))
    if (!(highest > 0)) return
    this.pushed = true
    runs.forEach((run, i) => {
      if (!run || !run.push.some((value) => value > 0)) return
      context.strokeStyle = look.panels[i]
      context.lineWidth = 1.8
      context.setLineDash(look.dashes[i])
      context.beginPath()
      for (let k = 0; k < run.push.length; k++)
        context.lineTo(this.x(run.sigma[k]), line - (line - 8) * Math.sqrt(Math.min(run.push[k] / highest, 1)))
      context.stroke()
    })
    context.setLineDash([])
  }

  listen() {
    const { stage, axis } = this
    const at = (event) => this.sigma(event.clientX - axis.getBoundingClientRect().left)
    let grip = null // 'time', 0 or 1
    axis.addEventListener("pointerdown", (event) => {
      const end = this.ends.indexOf(event.target)
      grip = end >= 0 ? end : "time"
      axis.setPointerCapture(event.pointerId)
      if (grip === "time") {
        stage.pause()
        this.handle.focus({ preventScroll: true })
        stage.scrub(positionAt(stage.levels, at(event)))
      } else event.target.focus({ preventScroll: true })
      event.preventDefault()
    })
    axis.addEventListener("pointermove", (event) => {
      if (grip === null) return
      if (grip === "time") stage.scrub(positionAt(stage.levels, at(event)))
      else stage.setEnd(grip, at(event), true)
    })
    const release = (event) => {
      if (grip === "time") stage.go(Math.round(stage.time))
      else if (grip !== null) stage.setEnd(grip, at(event), false)
      grip = null
    }
    axis.addEventListener("pointerup", release)
    axis.addEventListener("pointercancel", release)
    this.handle.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 5, PageDown: -5 }
      if (event.key in steps) stage.go(Math.round(stage.time) + steps[event.key])
      else if (event.key === "Home") stage.go(0)
      else if (event.key === "End") stage.go(stage.levels.length - 1)
      else return
      event.preventDefault()
      event.stopPropagation()
    })
    this.ends.forEach((end, i) =>
      end.addEventListener("keydown", (event) => {
        const factor = { ArrowLeft: 1.1, ArrowDown: 1 / 1.1, ArrowRight: 1 / 1.1, ArrowUp: 1.1 }[event.key]
        if (!factor) return
        stage.setEnd(i, Math.max(stage.interval[i], 1e-3) * factor, false)
        event.preventDefault()
        event.stopPropagation()
      }),
    )
  }
}

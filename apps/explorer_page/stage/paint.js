// Painting on a canvas: images of bands, lines with gaps, strokes, marks.

/** "#rrggbb" or "#rrggbbaa" as four bytes. */
function rgba(colour) {
  const part = (i) => parseInt(colour.slice(i, i + 2), 16)
  return [part(1), part(3), part(5), colour.length > 7 ? part(7) : 255]
}

/** A canvas with one pixel per entry of `image`, row 0 at the bottom, coloured by `palette`. */
function bandsCanvas(image, pixels, palette) {
  const canvas = document.createElement("canvas")
  canvas.width = canvas.height = pixels
  const context = canvas.getContext("2d")
  const data = context.createImageData(pixels, pixels)
  const colours = new Uint32Array(palette.map((c) => new Uint32Array(new Uint8Array(rgba(c)).buffer)[0]))
  const target = new Uint32Array(data.data.buffer)
  for (let row = 0; row < pixels; row++) {
    const from = (pixels - 1 - row) * pixels
    for (let i = 0; i < pixels; i++) target[row * pixels + i] = colours[image[from + i]]
  }
  context.putImageData(data, 0, 0)
  return canvas
}

/** Draw a canvas whose outermost pixels are centred on the edges of a window. */
function drawBands(context, frame, canvas, window) {
  const du = (window[2] - window[0]) / (canvas.width - 1) / 2
  const dv = (window[3] - window[1]) / (canvas.height - 1) / 2
  const [x, y] = [frame.x(window[0] - du), frame.y(window[3] + dv)]
  context.drawImage(canvas, x, y, frame.x(window[2] + du) - x, frame.y(window[1] - dv) - y)
}

/** Lines through points, broken where a coordinate is NaN. */
function drawLines(context, frame, curves) {
  const { x, y } = curves
  let down = false
  context.beginPath()
  for (let i = 0; i < x.length; i++) {
    if (x[i] !== x[i] || y[i] !== y[i]) down = false
    else if (down) context.lineTo(frame.x(x[i]), frame.y(y[i]))
    else {
      context.moveTo(frame.x(x[i]), frame.y(y[i]))
      down = true
    }
  }
  context.stroke()
}

/** Straight strokes; `colour(i)` gives a colour for each, if they differ. */
function drawStrokes(context, frame, strokes, colour) {
  const { x0, y0, x1, y1 } = strokes
  let last = null
  context.beginPath()
  for (let i = 0; i < x0.length; i++) {
    const now = colour ? colour(i) : null
    if (now !== last) {
      if (last !== null) context.stroke()
      context.beginPath()
      context.strokeStyle = last = now
    }
    context.moveTo(frame.x(x0[i]), frame.y(y0[i]))
    context.lineTo(frame.x(x1[i]), frame.y(y1[i]))
  }
  context.stroke()
}

/** A mark of a shape at a pixel, with a rim. */
function drawMark(context, shape, x, y, radius) {
  context.beginPath()
  if (shape === "circle") context.arc(x, y, radius, 0, 2 * Math.PI)
  else if (shape === "diamond") polygon(context, x, y, radius * 1.25, 4, 0)
  else if (shape === "square") polygon(context, x, y, radius * 1.3, 4, Math.PI / 4)
  else if (shape === "triangle") polygon(context, x, y, radius * 1.3, 3, -Math.PI / 2)
  context.closePath()
  context.stroke()
  context.fill()
}

function polygon(context, x, y, radius, corners, turn) {
  for (let i = 0; i < corners; i++) {
    const angle = turn + (2 * Math.PI * i) / corners
    context[i ? "lineTo" : "moveTo"](x + radius * Math.cos(angle), y + radius * Math.sin(angle))
  }
}

const PARTS = 4 // places of a stamp between two pixels, each way

/**
 * One mark as pixels, for stamping thousands of them: a pattern for each of its places between two pixels.
 *
 * Writing pixels is several times faster than drawing shapes or images where no graphics card draws.
 */
function stamp(shape, radius, rim, fill, halo, ratio) {
  const size = Math.ceil(2 * (radius * 1.4 + rim) * ratio) + 2
  const canvas = document.createElement("canvas")
  canvas.width = canvas.height = size
  const context = canvas.getContext("2d", { willReadFrequently: true })
  const patterns = []
  for (let j = 0; j < PARTS; j++) {
    for (let i = 0; i < PARTS; i++) {
      context.setTransform(1, 0, 0, 1, 0, 0)
      context.clearRect(0, 0, size, size)
      context.setTransform(ratio, 0, 0, ratio, size / 2 + i / PARTS, size / 2 + j / PARTS)
      context.fillStyle = fill
      context.strokeStyle = halo
      context.lineWidth = 2 * rim
      context.lineJoin = "round"
      drawMark(context, shape, 0, 0, radius)
      patterns.push(pattern(context.getImageData(0, 0, size, size), size))
    }
  }
  return { size, patterns }
}

/** The visible pixels of an image: where they are, their colour, and how opaque they are. */
function pattern({ data }, size) {
  const words = new Uint32Array(data.buffer)
  const found = { dx: [], dy: [], colour: [], alpha: [] }
  for (let i = 0; i < size * size; i++) {
    if (data[4 * i + 3] < 8) continue
    found.dx.push(i % size)
    found.dy.push(Math.floor(i / size))
    found.colour.push(words[i])
    found.alpha.push(data[4 * i + 3])
  }
  return { dx: Int32Array.from(found.dx), dy: Int32Array.from(found.dy), colour: Uint32Array.from(found.colour), alpha: Uint8Array.from(found.alpha) }
}

/** Put a stamp's middle at a pixel (not a whole one) of an image of `side` pixels each way. */
function press(target, side, { size, patterns }, x, y) {
  const [left, top] = [x - size / 2, y - size / 2]
  const [i, j] = [Math.floor(left), Math.floor(top)]
  const { dx, dy, colour, alpha } = patterns[Math.floor((top - j) * PARTS) * PARTS + Math.floor((left - i) * PARTS)]
  const inside = i >= 0 && j >= 0 && i + size <= side && j + size <= side
  for (let k = 0; k < dx.length; k++) {
    const [px, py] = [i + dx[k], j + dy[k]]
    if (!inside && (px < 0 || py < 0 || px >= side || py >= side)) continue
    const at = py * side + px
    if (alpha[k] === 255 || target[at] === 0) target[at] = colour[k]
    else target[at] = over(colour[k], alpha[k], target[at])
  }
}

/** A pixel of some opacity over another one, both as little-endian RGBA words. */
function over(above, alpha, below) {
  const a = alpha / 255
  const b = (below >>> 24) / 255
  const out = a + b * (1 - a)
  const mix = (shift) => Math.round((((above >>> shift) & 255) * a + ((below >>> shift) & 255) * b * (1 - a)) / out) << shift
  return (mix(0) | mix(8) | mix(16) | (Math.round(255 * out) << 24)) >>> 0
}

/** Text on a plate of the ground's colour. */
function drawLabel(context, text, x, y, ink, ground, align = "center") {
  context.font = "600 12px Roboto, Arial, sans-serif"
  context.textAlign = align
  context.textBaseline = "middle"
  const width = context.measureText(text).width + 6
  const left = align === "center" ? x - width / 2 : x - 3
  context.globalAlpha = 0.82
  context.fillStyle = ground
  context.fillRect(left, y - 8, width, 16)
  context.globalAlpha = 1
  context.fillStyle = ink
  context.fillText(text, x, y + 0.5)
}

// Windows onto the plane, [left, bottom, right, top], and what they mean in pixels and over the noise levels.

const REACH = 2.6 // standard deviations of the noise that a window following it shows each way

/** The window at noise level sigma of a view that follows the noise; the same as `following` in panels.py. */
function followed(base, home, sigma) {
  const half = Math.max(base[2] - base[0], base[3] - base[1]) / 2
  const wide = Math.hypot(half, REACH * sigma)
  const share = 1 - half / wide
  const middle = (i) => ((base[i] + base[i + 2]) / 2) * (1 - share) + ((home[i] + home[i + 2]) / 2) * share
  const reach = (i) => (((base[i + 2] - base[i]) / 2) * wide) / half
  return [middle(0) - reach(0), middle(1) - reach(1), middle(0) + reach(0), middle(1) + reach(1)]
}

/** The base window whose followed window at sigma is the given one, or null if there is none. */
function unfollowed(shown, home, sigma) {
  const wide = Math.max(shown[2] - shown[0], shown[3] - shown[1]) / 2
  const square = wide * wide - REACH * sigma * (REACH * sigma)
  if (square < 0.002 * wide * wide) return null
  const half = Math.sqrt(square)
  const share = 1 - half / wide
  const middle = (i) => ((shown[i] + shown[i + 2]) / 2 - ((home[i] + home[i + 2]) / 2) * share) / (1 - share)
  const reach = (i) => (((shown[i + 2] - shown[i]) / 2) * half) / wide
  return [middle(0) - reach(0), middle(1) - reach(1), middle(0) + reach(0), middle(1) + reach(1)]
}

/** A window on a square of `side` pixels, grown to a square itself. */
class Frame {
  constructor(window, side) {
    const half = Math.max(window[2] - window[0], window[3] - window[1]) / 2
    const [u, v] = [(window[0] + window[2]) / 2, (window[1] + window[3]) / 2]
    this.window = [u - half, v - half, u + half, v + half]
    this.side = side
    this.scale = side / (2 * half)
  }
  x(u) {
    return (u - this.window[0]) * this.scale
  }
  y(v) {
    return (this.window[3] - v) * this.scale
  }
  u(x) {
    return this.window[0] + x / this.scale
  }
  v(y) {
    return this.window[3] - y / this.scale
  }
  same(other) {
    return other.side === this.side && other.window.every((value, i) => value === this.window[i])
  }
}

/** Round numbers inside an interval, about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / count
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough)
  const found = []
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step)
  return { values: found, text: (value) => String(Number(value.toFixed(Math.max(0, -Math.floor(Math.log10(step)))))) }
}

/** Three significant digits, without trailing zeros. */
function digits(value) {
  return String(Number(Number(value).toPrecision(3)))
}

/**
 * Where a run is at a noise level: a position between its levels, interpolated in log sigma.
 *
 * Between the last positive level and 0 there is no logarithm; there the share is that of sigma itself.
 */
function positionAt(levels, sigma) {
  const last = levels.length - 1
  if (sigma <= 0) return last
  for (let k = 0; k < last; k++) {
    if (sigma <= levels[k] && sigma > levels[k + 1]) {
      const next = levels[k + 1]
      return k + (next > 0 ? Math.log(levels[k] / sigma) / Math.log(levels[k] / next) : 1 - sigma / levels[k])
    }
  }
  return sigma > levels[0] ? 0 : last
}

/** The noise level at a position between levels; the inverse of `positionAt`. */
function sigmaAt(levels, position) {
  const last = levels.length - 1
  const k = Math.min(Math.max(Math.floor(position), 0), last)
  if (k === last) return levels[last]
  const share = position - k
  const next = levels[k + 1]
  return next > 0 ? levels[k] * (next / levels[k]) ** share : levels[k] * (1 - share)
}

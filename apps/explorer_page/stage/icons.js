// Icons as small drawings, so that they look the same whatever fonts there are.

const ICONS = {
  play: "M5 3l9 6-9 6z",
  pause: "M4 3h3.5v12H4zM10.5 3H14v12h-3.5z",
  replay: "M9 3.2V0.6L4.6 4.4 9 8.2V5.4a4.4 4.4 0 1 1-4.3 5.4H2.4A6.6 6.6 0 1 0 9 3.2z",
  back: "M3 3h2v12H3zM15 3v12L6 9z",
  next: "M13 3h2v12h-2zM3 3v12l9-6z",
  loop: "M5 5h7v2.4L16 4l-4-3.4V3H3v6h2zM13 13H6v-2.4L2 14l4 3.4V15h9V9h-2z",
  follow: "M2 2h5v2H4v3H2zM11 2h5v5h-2V4h-3zM2 11h2v3h3v2H2zM14 11h2v5h-5v-2h3zM7 7h4v4H7z",
  copy: "M2 2h9v2H4v7H2zM6 6h10v10H6zM8 8v6h6V8z",
  swap: "M6 3v3h9v2H6v3L2 7zM12 9v3H3v2h9v3l4-4z",
  remove: "M4.2 2.8L9 7.6l4.8-4.8 1.4 1.4L10.4 9l4.8 4.8-1.4 1.4L9 10.4l-4.8 4.8-1.4-1.4L7.6 9 2.8 4.2z",
  home: "M9 2l7 6v8h-5v-5H7v5H2V8z",
}

/** A button with an icon; `text` is its name and its tooltip. */
function iconButton(name, text, act) {
  const button = make("button", { type: "button", class: name, title: text, "aria-label": text })
  setIcon(button, name)
  button.onclick = act
  return button
}

function setIcon(button, name) {
  if (button.icon === name) return
  button.icon = name
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg")
  svg.setAttribute("viewBox", "0 0 18 18")
  svg.setAttribute("aria-hidden", "true")
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path")
  path.setAttribute("d", ICONS[name])
  path.setAttribute("fill", "currentColor")
  path.setAttribute("fill-rule", "evenodd")
  svg.append(path)
  button.replaceChildren(svg)
}

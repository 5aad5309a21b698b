// Three steps of orientation, on the very first visit only.

const SEEN = "toyguide-welcomed"
const STEPS = [
  ["board", "Every panel starts from the same noise. Dots end where the data is, triangles end outside it. Click one: its path lights up in every panel."],
  ["timeline", "Play turns noise into data. Drag the handle to any noise level σ: the view and the layers follow."],
  ["legend", "Choose a preset or a rule on the left, and what is drawn here. The address is a link to this very picture; ? lists the keys."],
]

/** Show the steps, unless they were shown before or the visitor followed a link to a scene. */
function welcome(stage) {
  try {
    if (location.search || localStorage.getItem(SEEN)) return
    localStorage.setItem(SEEN, "1")
  } catch {
    return // a browser that keeps nothing would show them every time
  }
  const card = make("div", { class: "welcome", role: "dialog", "aria-label": "First steps" })
  const text = make("p")
  const next = make("button", { type: "button" }, "Next")
  const skip = make("button", { type: "button" }, "Skip")
  card.append(text, next, skip)
  stage.element.append(card)
  let step = -1
  const target = (i) => stage.element.querySelector(`.${STEPS[i][0]}`)
  const end = () => {
    if (step >= 0) target(step).classList.remove("pointed")
    card.remove()
  }
  const go = () => {
    if (step === STEPS.length - 1) return end()
    if (step >= 0) target(step).classList.remove("pointed")
    step++
    target(step).classList.add("pointed")
    text.textContent = `${step + 1} of ${STEPS.length}: ${STEPS[step][1]}`
    if (step === STEPS.length - 1) next.textContent = "Start"
    skip.hidden = step === STEPS.length - 1
  }
  next.onclick = go
  skip.onclick = end
  card.addEventListener("keydown", (event) => event.key === "Escape" && end())
  go()
}

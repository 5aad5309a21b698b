// The rule of a panel: a button that opens a list of all rules, by family, with a box to search it.

function make(tag, attributes = {}, ...content) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...content.filter((part) => part !== ""))
  return element
}

/** Whether each word of what was typed begins a word of the text. */
function matches(typed, text) {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean)
  return words.every((word) => text.startsWith(word) || text.includes(" " + word))
}

export function render({ model, el }) {
  const name = make("b")
  const button = make("button", { type: "button", class: "chosen", "aria-haspopup": "dialog", "aria-expanded": "false" })
  button.append(make("small", {}, "Rule"), name)
  const typed = make("input", {
    type: "search", role: "combobox", placeholder: "Name, paper or words", "aria-label": "Search the rules",
    "aria-controls": "rules", "aria-expanded": "true", "aria-autocomplete": "list", autocomplete: "off", spellcheck: "false",
  })
  const list = make("div", { id: "rules", role: "listbox", "aria-label": "Rules" })
  const none = make("p", { role: "status", class: "none" })
  const pop = make("div", { popover: "auto", role: "dialog", "aria-label": "Choose a rule" }, typed, none, list)
  el.append(make("style", {}, model.style), button, pop)

  let options = []
  let active = null

  const shown = () => options.filter((option) => !option.hidden)

  const point = (option) => {
    active?.classList.remove("active")
    active = option ?? null
    active?.classList.add("active")
    if (active) typed.setAttribute("aria-activedescendant", active.id)
    else typed.removeAttribute("aria-activedescendant")
    active?.scrollIntoView({ block: "nearest" })
  }

  const filter = () => {
    for (const option of options) option.hidden = !matches(typed.value, option.text)
    for (const group of list.children) group.hidden = [...group.querySelectorAll("[role=option]")].every((o) => o.hidden)
    none.textContent = shown().length ? "" : "No rule has these words."
  }

  const choose = (option) => {
    if (!option || option.getAttribute("aria-disabled") == "true") return
    pop.hidePopover()
    button.focus()
    if (option.key != model.chosen.key) model.send_msg({ kind: "choose", key: option.key })
  }

  /** What is known of a rule by now: what it costs, and why it cannot run here. */
  const detail = (option) => {
    const reason = model.blocked[option.key] ?? ""
    option.setAttribute("aria-disabled", String(reason != ""))
    option.querySelector(".cost").textContent = model.costs[option.key] ?? ""
    option.querySelector(".why").textContent = reason && `Not in this scene: ${reason}`
    option.setAttribute("aria-selected", String(option.key == model.chosen.key))
  }

  const build = () => {
    options = []
    const groups = model.families.map(({ family, rules }, g) => {
      const group = make("div", { role: "group", "aria-labelledby": `family-${g}` })
      group.append(make("div", { id: `family-${g}`, class: "family" }, family))
      for (const rule of rules) {
        const badges = rule.badges.map((badge) => make("i", {}, badge))
        const head = make("div", { class: "head" }, make("b", {}, rule.title), make("code", {}, rule.key), ...badges)
        head.append(make("span", { class: "cost" }))
        const option = make("div", { role: "option", id: `rule-${rule.key.replaceAll(/\W/g, "_")}`, title: rule.summary })
        option.append(head, make("div", { class: "what" }, rule.what), make("div", { class: "why" }))
        Object.assign(option, { key: rule.key, text: rule.find })
        option.onclick = () => choose(option)
        option.onpointermove = () => option != active && point(option)
        options.push(option)
        group.append(option)
      }
      return group
    })
    list.replaceChildren(...groups)
    options.forEach(detail)
    filter()
  }

  const place = () => {
    const edge = button.getBoundingClientRect()
    const narrow = innerWidth < 700
    const top = narrow ? 8 : Math.min(edge.top, Math.max(8, innerHeight - 560))
    pop.style.left = `${narrow ? 8 : edge.left}px`
    pop.style.width = `${Math.min(narrow ? innerWidth - 16 : 540, innerWidth - 16)}px`
    pop.style.top = `${top}px`
    pop.style.maxHeight = `${innerHeight - top - 12}px`
  }

  const open = () => {
    model.send_msg({ kind: "open" })
    typed.value = ""
    filter()
    place()
    pop.showPopover()
    typed.focus()
    point(options.find((option) => option.key == model.chosen.key))
    active?.scrollIntoView({ block: "center" })
  }

  button.onclick = () => (pop.matches(":popover-open") ? pop.hidePopover() : open())
  button.onkeydown = (event) => {
    if (event.key == "ArrowDown") event.preventDefault(), open()
  }
  pop.addEventListener("toggle", (event) => button.setAttribute("aria-expanded", String(event.newState == "open")))
  typed.oninput = () => {
    filter()
    point(shown()[0])
  }
  typed.onkeydown = (event) => {
    const all = shown()
    const here = all.indexOf(active)
    const goal = { ArrowDown: here + 1, ArrowUp: here - 1, PageDown: here + 6, PageUp: here - 6 }[event.key]
    if (goal !== undefined) {
      event.preventDefault()
      point(all[Math.max(0, Math.min(all.length - 1, goal))])
    } else if (event.key == "Enter") {
      event.preventDefault()
      choose(active)
    }
  }

  const say = () => {
    name.textContent = model.chosen.title
    options.forEach(detail)
  }
  model.on("change:chosen", say)
  model.on("change:blocked", () => options.forEach(detail))
  model.on("change:costs", () => options.forEach(detail))
  model.on("change:families", build)
  build()
  say()
}

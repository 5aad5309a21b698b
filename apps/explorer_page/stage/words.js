// The words that the page uses, explained in a drawer beside it.

class Words {
  constructor(stage) {
    this.stage = stage
    this.element = make("aside", { class: "drawer", "aria-label": "Words", hidden: "" })
    const head = make("div", { class: "head" })
    this.search = make("input", { type: "search", placeholder: "Find a word", "aria-label": "Find a word" })
    this.search.oninput = () => this.filter()
    head.append(make("h2", {}, "Words"), this.search, iconButton("remove", "Close the words", () => this.close()))
    this.list = make("dl")
    this.element.append(head, this.list)
    this.element.addEventListener("keydown", (event) => event.key === "Escape" && this.close())
  }

  set(words) {
    this.entries = Object.entries(words).map(([key, { term, text }]) => {
      const entry = make("div")
      entry.key = key
      entry.append(make("dt", {}, term), make("dd", {}, text))
      return entry
    })
    this.list.replaceChildren(...this.entries)
  }

  /** Open the drawer, at one word if it is known. */
  open(key) {
    this.element.hidden = false
    this.search.value = ""
    this.filter()
    this.before = document.activeElement
    for (const entry of this.entries ?? []) {
      entry.classList.toggle("meant", entry.key === key)
      if (entry.key === key) entry.scrollIntoView({ block: "center" })
    }
    this.search.focus({ preventScroll: true })
  }

  close() {
    this.element.hidden = true
    this.before?.focus?.()
  }

  filter() {
    const wanted = this.search.value.toLowerCase()
    for (const entry of this.entries ?? []) entry.hidden = !entry.textContent.toLowerCase().includes(wanted)
  }
}

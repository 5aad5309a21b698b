// The stage as a component of Panel: its parameters are the stage's parts.

export function render({ model, el }) {
  const stage = createStage(el, (message) => model.send_msg(message))
  const parts = ["looks", "words", "status"]
  for (let i = 1; i <= LETTERS.length; i++) parts.push(`run_${i}`, `scene_${i}`, `arrows_${i}`)
  parts.push("marks", "board", "headline", "legend")
  for (const name of parts) {
    const take = () => Object.keys(model[name]).length && stage.set(name, model[name])
    take()
    model.on(name, take)
  }
  const page = [...Bokeh.documents[0].all_models].find((one) => one.name === "page" && "dark_theme" in one)
  if (page) {
    const themed = () => stage.setDark(page.dark_theme)
    stage.openSettings = () => (page.sidebar_open = true)
    page.properties.dark_theme.change.connect(themed)
    themed()
  }
  // The address follows the settings; going back or on is told to the server, which applies what it says.
  model.on("address", () => {
    const { search } = model.address
    if (search !== location.search) history.pushState({}, "", location.pathname + search)
  })
  const travelled = () => stage.say({ kind: "travel", value: location.search })
  addEventListener("popstate", travelled)
  welcome(stage)
  model.on("remove", () => {
    removeEventListener("popstate", travelled)
    stage.destroy()
  })
  window.toyguide = stage
}

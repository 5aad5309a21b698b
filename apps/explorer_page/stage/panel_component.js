// The stage as a component of Panel: its parameters are the stage's parts.

export function render({ model, el }) {
  const stage = createStage(el, (message) => model.send_msg(message))
  const parts = ["looks", "status"]
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
    page.properties.dark_theme.change.connect(themed)
    themed()
  }
  welcome(stage)
  model.on("remove", () => stage.destroy())
  window.toyguide = stage
}

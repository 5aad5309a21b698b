"""What a server keeps of the visitors who have left: nothing. Counted in a process of its own, over real sessions."""

import json
import subprocess
import sys
import textwrap

import pytest

COUNT = """
    import asyncio, collections, gc, json, sys, threading, time
    import panel as pn
    from bokeh.client import pull_session
    from bokeh.document import Document
    from bokeh.document.events import MessageSentEvent
    from bokeh.events import DocumentReady
    from panel.io.server import get_server
    from panel_material_ui import Page
    from toyguide_apps.serve import EXPLORER, STUDIES
    from toyguide_apps.explorer_page.session import Explorer
    from toyguide_apps.explorer_page.views.stage import StageModel
    from toyguide_apps.studies_page.session import Studies

    pn.extension("katex", notifications=True)
    name, visits = sys.argv[1], int(sys.argv[2])
    ready = threading.Event()

    def serve():
        asyncio.set_event_loop(asyncio.new_event_loop())
        global server
        server = get_server(
            {"explorer": str(EXPLORER), "studies": str(STUDIES)},
            port=0,
            address="127.0.0.1",
            check_unused_sessions_milliseconds=100,
            unused_session_lifetime_milliseconds=100,
        )
        server.start()
        ready.set()
        server.io_loop.start()

    threading.Thread(target=serve, daemon=True).start()
    ready.wait()

    def visit():
        arguments = {"n": "128", "steps": "8", "bands": "none", "layers": "samples"} if name == "explorer" else {}
        session = pull_session(url=f"http://127.0.0.1:{server.port}/{name}", arguments=arguments)
        document, connection = session.document, session._connection
        document.callbacks.trigger_on_change(MessageSentEvent(document, "bokeh_event", DocumentReady()))
        if name == "explorer":
            stage = document.get_model_by_name("stage")
            connection._loop_until(lambda: "x" in stage.run_2 or not connection.connected)
            assert len(stage.run_2["x"]) == 9 * 128
        session.force_roundtrip()
        session.close()

    def alive():
        give_up = time.monotonic() + 60
        while any(server.get_sessions(f"/{page}") for page in ("explorer", "studies")) and time.monotonic() < give_up:
            time.sleep(0.05)
        time.sleep(1.0)  # a picture's last seconds: what was scheduled before the visitor left
        gc.collect()
        everything = gc.get_objects()
        kinds = (Document, Explorer, Page, Studies, StageModel)
        return {k.__name__: sum(type(o) is k for o in everything) for k in kinds}, len(everything), len(pn.state._views)

    for _ in range(2):  # what is kept for all visitors is there from now on
        visit()
        before = alive()  # whose look at all objects fills caches of its own
    for _ in range(visits):
        visit()
    print(json.dumps([before, alive()]))
"""


@pytest.mark.parametrize("name", ["explorer", "studies"])
def test_nothing_is_kept_of_visitors_who_have_left(name):
    visits = 6
    command = [sys.executable, "-c", textwrap.dedent(COUNT), name, str(visits)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (kinds, objects, views), (kinds_then, objects_then, views_then) = json.loads(done.stdout)
    assert kinds_then == kinds
    assert views_then == views
    assert (objects_then - objects) / visits < 300

"""The agent's page in a real browser: what it shows of real pools, live, and what it lets one do."""

import functools
import http.server
import json
import os
import re
import signal
import threading

import pytest
from harness.agent import Agent
from harness.browser import Browser

TOKEN = "a-token-of-the-dashboard"
HOSTILE = "<img src=x onerror=document.title=1><script>document.title=1</script>"

# Of every row of the picture that has pixels of a colour: [y, the first x, the last x].
ROWS_OF_COLOUR = """(() => {
  const canvas = document.getElementById("waterfall");
  const {width, height} = canvas;
  const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--NAME").trim();
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const rows = [];
  for (let y = 0; y < height; y += 1) {
    let first = -1, last = -1, groups = 0, inside = false;
    for (let x = 0; x < width; x += 1) {
      const i = 4 * (y * width + x);
      const same = Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 12;
      if (same && !inside) groups += 1;
      inside = same;
      if (same) { if (first < 0) first = x; last = x; }
    }
    if (first >= 0) rows.push([y, first, last, groups]);
  }
  return rows;
})()"""


def rows_of(page, name):
    return page.eval(ROWS_OF_COLOUR.replace("NAME", name))


def wait_rows(page, name, least):
    """Until that many rows have the colour: a bar of a moment may be narrower than a pixel."""
    page.wait(f"{ROWS_OF_COLOUR.replace('NAME', name)}.length >= {least}")


@pytest.fixture(scope="module")
def browser():
    made = Browser()
    yield made
    made.close()


@pytest.fixture
def look(browser):
    """Opens pages; at the end none may have had an error."""
    pages = []

    def open_page(agent, hash="range=60", **options):
        pages.append(browser.open(f"http://{agent.address}/#{hash}", **options))
        return pages[-1]

    yield open_page
    errors = [page.errors() for page in pages]
    asked = [url for page in pages for url in page.ask("requests")]
    for page in pages:
        page.close()
    assert not any(errors), errors
    # Nothing comes from anywhere but the agent.
    assert all(re.match(r"http://127\.0\.0\.1:\d+/", url) for url in asked), asked


@pytest.fixture
def make_agent():
    agents = []

    def make(*args, **kwargs):
        agents.append(Agent(["--sample", "0.3", *args], **kwargs))
        return agents[-1]

    yield make
    for agent in agents:
        agent.destroy()


def cards(page, count, timeout=30):
    page.wait(f"document.querySelectorAll('.card').length === {count}", timeout)


def shop(make_pool, *args, workers=4, worker=()):
    pool = make_pool(["-n", workers, "-m", "notify", "-b", "127.0.0.1:0", *args],
                     ["http_worker", "--ack=notify", "--threads=1", *worker], name="shop")
    pool.wait_ready(workers)
    return pool


def test_a_pool_is_seen(make_pool, make_agent, look):
    pool = shop(make_pool, worker=["--status=serving", "--ping=GET /a #1"])
    agent = make_agent(pool.socket_path)
    page = look(agent)
    cards(page, 4)
    pids = {f"pid {worker['pid']}" for worker in pool.state_json()["workers"]}
    assert set(page.eval("[...document.querySelectorAll('.card .pid')].map((e) => e.textContent)")) == pids
    page.wait_text(".card .text", "serving")
    page.wait_text("#facts", "4 of 4")
    page.wait_text("#facts", "memory")  # a sample has come
    assert page.text("#pool-state") == "up" and page.eval("document.title") == "shop · Einhorn"
    assert page.text("#agent-state").startswith("agent ")
    assert "4 lives" in page.eval("document.getElementById('waterfall').getAttribute('aria-label')")
    wait_rows(page, "v0", 4 * 8)
    assert not page.visible("#control") and not page.visible("#lost") and not page.visible("#pool-notice")
    page.click(".card button")
    page.wait_text("#life-facts", str(pool.state_json()["workers"][0]["pid"]))
    assert "GET /a #1" in page.text("#life-facts") and not page.visible("#life-stop")
    policy = agent.get("/").headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "trusted-types" in policy


def test_an_upgrade_is_a_staircase_watched_live(make_pool, make_agent, look):
    pool = shop(make_pool, "--max-unacked", "1", worker=["--ack-delay-ms=250", "--drain-delay-ms=250"])
    agent = make_agent(pool.socket_path)
    page = look(agent, "range=30&rows=life")
    cards(page, 4)
    pool.request("upgrade", id=1)
    page.wait_text("#upgrade-text", "Upgrade v0 → v1")
    page.wait("document.querySelectorAll('.card.c1').length > 0 && document.querySelectorAll('.card.c0').length > 0")
    assert page.visible("#upgrade-bar")
    page.wait("document.querySelector('.card.starting')")
    page.wait_text("#upgrade-text", "done")
    page.wait_text("#announce", "shop: ")
    page.wait("document.querySelectorAll('.card.c1.ready').length === 4 && document.querySelectorAll('.card').length === 4")
    assert page.text("#legend") == "v0v1" and not page.visible("#upgrade-bar")
    # Each row begins where the one above it began, or later; together that is a stair.
    starts = [first for _, first, _, _ in rows_of(page, "v1-pale")]
    assert starts == sorted(starts) and len(set(starts)) >= 2, starts
    old, new = rows_of(page, "v0"), rows_of(page, "v1")
    assert old[-1][0] < new[0][0]  # the old version stands above
    assert min(last for _, _, last, _ in new) > max(last for _, _, last, _ in old)
    # The same in rows of slots.
    page.press("r")
    page.wait("document.querySelector('#rows input:checked').value === 'slot'")
    assert "rows=slot" in page.eval("location.hash")


def test_a_crash_loop_is_a_comb_with_its_last_words(make_pool, make_agent, look):
    script = (f"echo 'cannot open {HOSTILE}' >&2; "
              'if [ "$EINHORN_CHILD_INDEX" = 0 ]; then sleep 0.3; exit 3; fi; exec sleep 600')
    pool = make_pool(["-n", "3", "-m", "0.05", "--capture-file", "@DIR@/out"], ["/bin/sh", "-c", script], name="loop")
    agent = make_agent(pool.socket_path)
    page = look(agent, "range=20")
    page.wait("Number(document.getElementById('crash-count').textContent) >= 6", 40)
    page.wait_text("#crashes .how", "exited with status 3")
    page.wait("parseInt(document.querySelector('#crashes .times').textContent) >= 6")
    assert page.count("#crashes .crash") == 1, page.text("#crashes")
    assert "slot 0" in page.text("#crashes .where")
    teeth = max(groups for _, _, _, groups in rows_of(page, "bad"))
    assert teeth >= 4
    assert len({y for y, *_ in rows_of(page, "bad")}) < 20  # in one row alone
    page.click("#crashes summary")
    page.wait_text("#crashes pre", f"stderr: cannot open {HOSTILE}")
    page.click("#crashes button")
    page.wait_text("#life-output", HOSTILE)
    assert page.count("#life-output *") == 0 and page.count("#crashes pre *") == 0
    assert page.eval("document.title") == "loop · Einhorn"
    page.press("Escape")
    page.select("#history-kind", "crashes")
    page.wait_text("#history-body", "exited with status 3, ready")
    page.wait_text("#announce", "crashed")


def test_what_workers_say_stays_text(make_pool, make_agent, look):
    pool = shop(make_pool, workers=1, worker=[f"--status={HOSTILE}", f"--ping={HOSTILE}"])
    agent = make_agent(pool.socket_path)
    page = look(agent)
    page.wait(f"document.querySelector('.card .text')?.textContent === {json.dumps(HOSTILE)}")
    page.click(".card button")
    page.wait_text("#life-facts", HOSTILE)
    page.press("Escape")
    # Its successor says the same, as events.
    os.kill(pool.pids()[0], signal.SIGKILL)
    page.eval("document.getElementById('history-routine').click()")
    page.wait_text("#history-body", HOSTILE)
    page.fill("#history-filter", "onerror")
    page.wait("""(() => { const rows = [...document.querySelectorAll('#history-body tr')];
        return rows.length >= 2 && rows.every((row) => row.textContent.includes('onerror')); })()""")
    assert page.count("main img") == 0 and page.count("dialog img") == 0
    assert page.count("main script") == 0
    assert page.eval("document.title") == "shop · Einhorn"
    # Were it written as markup all the same, the policy would not have it.
    assert "TrustedHTML" in page.eval("(() => { try { document.body.innerHTML = 'x'; return '' } "
                                      "catch (error) { return String(error) } })()")
    assert all("TrustedHTML" in text for text in page.ask("forget"))


def test_two_hundred_workers(make_pool, make_agent, look):
    pool = make_pool(["-n", "200", "-m", "0.05"], ["/bin/sleep", "600"], name="many")
    pool.wait_ready(200, 60)
    agent = make_agent(pool.socket_path)
    agent.wait_pool("many", lambda p: p["ready"] == 200)
    page = look(agent, "range=300")
    cards(page, 200)
    page.wait_text("#facts", "200 of 200")
    assert page.count("#workers.dense") == 1
    assert page.ask("work")["TaskDuration"] < 3  # bench/page has the figure
    wait_rows(page, "v0", 400)
    page.fill("#worker-filter", "#17")
    cards(page, 1)
    assert page.text("#worker-count") == "1 of 200"
    page.fill("#worker-filter", "")
    # Live, and all at once.
    pool.request("set_workers", args=["150"], id=1)
    cards(page, 150)
    assert page.eval("document.documentElement.scrollWidth <= innerWidth")


def test_the_master_is_lost_and_comes_back(make_pool, make_agent, look):
    pool = shop(make_pool, workers=2)
    agent = make_agent(pool.socket_path)
    page = look(agent)
    cards(page, 2)
    pool.stop()
    page.wait_text("#pool-notice", "No connection to the master of shop")
    assert page.text("#pool-state") == "no master" and page.visible("#pool-notice")
    assert page.eval("document.getElementById('pool').classList.contains('stale')")
    page.wait_text("#announce", "no connection to the master")
    pool.start()
    page.wait("!document.getElementById('pool-notice').checkVisibility()", 30)
    cards(page, 2)
    page.wait_text("#facts", f"{pool.state_json()['master']}")
    assert page.text("#pool-state") == "up"
    # Those that lived before are still to be seen.
    assert "4 lives" in page.eval("document.getElementById('waterfall').getAttribute('aria-label')")
    # A master that is killed is back at once, with the same workers.
    before = page.eval("[...document.querySelectorAll('.card .pid')].map((e) => e.textContent).join()")
    pool.kill_master()
    page.wait_text("#facts", f"{pool.state_json()['master']}")
    assert page.eval("[...document.querySelectorAll('.card .pid')].map((e) => e.textContent).join()") == before


def test_the_agent_is_lost_and_comes_back(make_pool, make_agent, look):
    pool = shop(make_pool, workers=2)
    agent = make_agent(pool.socket_path)
    page = look(agent)
    cards(page, 2)
    agent.stop()
    page.wait_text("#lost", "does not answer")
    assert page.visible("#lost") and page.text("#agent-state") == "no agent"
    os.kill(pool.pids()[0], signal.SIGKILL)
    pool.wait_ready(2)
    agent.command[2] = agent.address
    agent.start()
    page.wait("document.getElementById('lost').checkVisibility() === false", 30)
    # The new agent knows nothing of what was; the page does, but for an end that nobody saw.
    page.wait("document.getElementById('waterfall').getAttribute('aria-label').startsWith('3 lives')")
    page.wait("!document.getElementById('lost').checkVisibility()", 30)
    pids = {f"pid {worker['pid']}" for worker in pool.state_json()["workers"]}
    page.wait("document.querySelectorAll('.card').length === 2")
    assert set(page.eval("[...document.querySelectorAll('.card .pid')].map((e) => e.textContent)")) == pids
    # And it is live again.
    pool.request("set_workers", args=["3"], id=1)
    cards(page, 3)


def test_an_agent_that_hangs_is_lost_too(make_pool, make_agent, look):
    pool = shop(make_pool, workers=1)
    agent = make_agent(pool.socket_path)
    page = look(agent)
    cards(page, 1)
    agent.process.send_signal(signal.SIGSTOP)
    try:
        # A minute is over in a second (something may still be on its way when it begins): the connection
        # stands, but nothing comes of it.
        page.eval("{ const now = Date.now, start = now(); Date.now = () => start + 60 * (now() - start);"
                  " globalThis.restore = () => { Date.now = now; } }")
        page.wait_text("#lost", "does not answer")
        page.eval("restore()")
    finally:
        agent.process.send_signal(signal.SIGCONT)
    page.wait("!document.getElementById('lost').checkVisibility()", 30)
    pool.request("set_workers", args=["2"], id=1)
    cards(page, 2)


SERVER = """
import json, os, signal, socket, sys, time
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(0))
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"])
notify.send(b"READY=1")
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
def say(request, busy):
    ping = {"command": "worker:ping", "pid": os.getpid(), "request_id": request, "busy": busy}
    line = socket.socket(socket.AF_UNIX)
    line.connect(os.environ["EINHORN_SOCK_PATH"])
    line.sendall(json.dumps(ping).encode() + b"\\n")
    line.close()
for number in range(1000):
    say(f"GET /{number}", True)
    say(f"GET /{number}", False)
say("GET /slow", True)
signal.pause()
"""


def test_requests_and_a_flood_of_pings(make_pool, make_agent, look, tmp_path):
    go = tmp_path / "go"
    pool = make_pool(["-n", "1", "-m", "notify"], ["/usr/bin/python3", "-c", SERVER, go], name="shop")
    pool.wait_ready(1)
    agent = make_agent(pool.socket_path)
    page = look(agent)
    cards(page, 1)
    pool.request("set_workers", args=["2"], id=1)
    page.wait("document.querySelectorAll('.card.ready').length === 2")
    go.touch()
    page.wait("document.querySelectorAll('.card .busy')[1]?.textContent === 'busy: GET /slow'")
    page.wait_text("#facts", "requests")
    page.wait("document.getElementById('charts').getAttribute('aria-label').includes('requests a second')")
    # A page that is opened later gets the same from the agent.
    shown = agent.wait_pool("shop", lambda p: sum(s.get("requests", 0) for s in p["series"]) > 0)
    other = look(agent)
    other.wait("document.getElementById('charts').getAttribute('aria-label')?.includes('requests a second')")
    other.wait_text(".card .busy", "busy: GET /slow")
    # The pings push nothing else out of what is kept, there and here.
    assert "spawned" in [event["event"] for event in shown["events"]]
    page.wait_text("#history-body", "spawned")
    other.wait_text("#history-body", "spawned")


def test_the_page_follows_as_the_agent_does(make_pool, make_agent, look):
    """The same events lead page and agent to the same picture."""
    pool = shop(make_pool, worker=["--status=serving", "--ping=GET /", "--drain-delay-ms=100"])
    agent = make_agent(pool.socket_path, "--sample", "0")
    before = agent.wait_pool("shop", lambda p: p["ready"] == 4)
    stream = agent.stream()
    assert stream.next()[0] == "hello"
    os.kill(pool.pids()[1], signal.SIGSEGV)
    agent.wait_pool("shop", lambda p: p["crashes"] == 1 and p["ready"] == 4)
    pool.request("upgrade_fleet", id=1)
    agent.wait_pool("shop", lambda p: p["upgrades"] == 1 and len(p["workers"]) == 4)
    pool.request("set_workers", args=["2"], id=1)
    agent.wait_pool("shop", lambda p: len(p["workers"]) == 2)
    pool.request("rollback", id=1)
    after = agent.wait_pool("shop", lambda p: p["upgrade"]["outcome"] == "rolled_back" and len(p["workers"]) == 2)
    lines, reloads = [], 0
    while not lines or lines[-1].get("n", 0) < after["n"]:
        name, data = stream.next()
        if name == "line":
            lines.append(data["line"])
        reloads += name == "reload"
    stream.close()
    assert reloads == 0, "what came before a new start of the stream is no part of this"
    page = look(agent)
    shown = page.eval("""(async () => {
      const {PoolModel} = await import("/model.js");
      const model = new PoolModel("shop");
      model.reset(%s);
      for (const line of %s) model.take(line);
      return {...model, workers: [...model.workers.values()], ready: model.readyCount()};
    })()""" % (json.dumps(before), json.dumps(lines)))
    for member in ("n", "number", "ready", "version", "crashes", "upgrades", "master", "guard", "failed", "stopping", "missed"):
        assert shown[member] == after[member], member
    assert {key: shown["upgrade"].get(key) for key in ("from", "to", "kind", "outcome", "reason")} == \
        {key: after["upgrade"].get(key) for key in ("from", "to", "kind", "outcome", "reason")}
    parts = ("epoch", "slot", "pid", "version", "state", "spawned_at", "ready_at", "stopping_at", "ended_at", "how", "stage",
             "crashed", "signal", "status", "status_text", "request_id")
    for kind in ("workers", "lives"):
        assert len(shown[kind]) == len(after[kind])
        for mine, agents in zip(shown[kind], after[kind]):
            for key in parts:
                expected = agents.get(key)
                assert mine.get(key) == (pytest.approx(expected, abs=1e-4) if key.endswith("_at") and expected else expected), key


def test_a_failed_upgrade_says_why(make_pool, make_agent, look):
    pool = make_pool(["-n", "2", "-m", "0.3", "--upgrade-timeout", "20"],
                     ["/bin/sh", "-c", "test ! -e bad || exit 7; exec sleep 600"], name="shop")
    pool.wait_ready(2)
    agent = make_agent(pool.socket_path)
    page = look(agent)
    cards(page, 2)
    (pool.dir / "bad").touch()
    pool.request("upgrade", id=1)
    # It goes back by itself; why is still said.
    page.wait("document.querySelector('#upgrade.rolled_back')", 40)
    assert "Roll-back v1 → v0: done" in page.text("#upgrade-text")
    assert "Version 1 failed: " in page.text("#upgrade-text")
    assert agent.pool("shop")["upgrade"]["reason"] in page.text("#upgrade-text")
    page.select("#history-kind", "upgrades")
    page.wait_text("#history-body", "rolled back: ")
    page.wait_text("#crashes .how", "exited with status 7")
    page.wait("[...document.querySelectorAll('.card')].every((card) => card.classList.contains('c0'))")
    page.wait_text("#pool-state", "up")


@pytest.fixture
def controlled(make_agent, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o600)
    return lambda pool: make_agent(pool.socket_path, "--allow-control", "--token-file", token)


def test_control_asks_first_and_needs_the_token(make_pool, controlled, look):
    pool = shop(make_pool, workers=2)
    page = look(controlled(pool))
    cards(page, 2)
    assert page.visible("#control")
    page.click("[data-command=set_workers]")
    page.fill("#confirm-number", "3")
    page.fill("#confirm-token", "not-the-token-of-it")
    page.press("Enter")
    page.wait_text("#confirm-error", "not the agent's")
    assert pool.state_json()["number"] == 2
    page.fill("#confirm-token", TOKEN)
    page.press("Enter")
    cards(page, 3)
    page.wait("!document.getElementById('confirm').open")
    page.wait("document.getElementById('toast').checkVisibility()")
    # The token is known now, and asked for no more; it is in no storage.
    page.click("[data-command=upgrade]")
    assert not page.visible("#confirm-token")
    page.click("#confirm [data-close]")
    assert pool.state_json()["version"] == 0
    page.click("[data-command=upgrade]")
    page.click("#confirm-go")
    page.wait_text("#upgrade-text", "v0 → v1: done")
    page.click("[data-command=rollback]")
    page.click("#confirm-go")
    page.wait_text("#upgrade-text", "Roll-back")
    assert page.eval("localStorage.length + sessionStorage.length") == 0
    assert TOKEN not in page.eval("document.documentElement.outerHTML")


@pytest.fixture
def foreign_site(tmp_path):
    """Somebody else's web server: http://127.0.0.1:PORT/ is an empty page."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<!doctype html><title>another site</title><p>hello")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "site")
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_another_site_can_neither_read_nor_control(make_pool, controlled, look, foreign_site):
    pool = shop(make_pool, workers=2)
    agent = controlled(pool)
    page = look(agent)
    cards(page, 2)
    page.ask("goto", url=foreign_site)
    # Even with the token: without it nobody gets that far.
    tried = page.eval("""(async () => {
      const agent = "http://%s";
      const asked = {pool: "shop", command: "set_workers", args: ["5"]};
      const headers = {"Content-Type": "application/json", Authorization: "Bearer %s"};
      const outcome = async (what) => { try { return String(await what()); } catch (error) { return "refused"; } };
      return [
        await outcome(async () => (await fetch(`${agent}/api/pools`)).text()),
        await outcome(async () => (await fetch(`${agent}/api/control`, {method: "POST", headers, body: JSON.stringify(asked)})).status),
        await outcome(async () => (await fetch(`${agent}/api/control`, {method: "POST", mode: "no-cors", body: JSON.stringify(asked)})).type),
        await outcome(() => new Promise((resolve, reject) => {
          const source = new EventSource(`${agent}/api/events`);
          source.onmessage = source.onopen = () => resolve("heard");
          source.onerror = () => { source.close(); reject(); };
        })),
        await outcome(() => new Promise((resolve) => {
          const frame = document.createElement("iframe");
          frame.onload = () => { try { resolve(frame.contentDocument ? "blank" : "closed"); } catch (error) { resolve("closed"); } };
          frame.src = agent;
          document.body.append(frame);
        })),
      ];
    })()""" % (agent.address, TOKEN))
    assert tried == ["refused", "refused", "opaque", "refused", "closed"]
    said = page.ask("forget")
    assert any("frame" in text for text in said) and any("CORS" in text for text in said), said
    state = pool.state_json()
    assert (state["number"], state["version"]) == (2, 0)


def test_one_worker_is_stopped(make_pool, controlled, look):
    pool = shop(make_pool, workers=2)
    page = look(controlled(pool))
    cards(page, 2)
    gone, stays = (worker["pid"] for worker in pool.state_json()["workers"])
    page.click(f".card button:has-text('pid {gone}')")
    page.click("#life-stop")
    page.wait_text("#confirm-text", f"pid {gone}")
    page.fill("#confirm-token", TOKEN)
    page.press("Enter")
    page.wait("!document.getElementById('confirm').open")
    pids = "[...document.querySelectorAll('.card.ready .pid')].map((e) => e.textContent)"
    page.wait(f"{pids}.length === 2 && !{pids}.includes('pid {gone}')")
    assert f"pid {stays}" in page.eval(pids)
    # It was told to: no crash.
    assert page.count("#crashes .crash") == 0


def test_keys_and_screen_readers(make_pool, controlled, look):
    pool = shop(make_pool, workers=2)
    page = look(controlled(pool), calm=True)
    cards(page, 2)
    page.press("3")
    page.wait("location.hash.includes('range=3600')")
    page.press("w")
    assert page.eval("document.activeElement.id") == "waterfall"
    page.press("ArrowDown")
    page.press("ArrowDown")
    page.press("Enter")
    page.wait_text("#life-title", "Worker #1")
    page.press("Escape")
    page.wait("!document.getElementById('life').open")
    page.press("PageUp")
    page.wait("document.getElementById('live').getAttribute('aria-pressed') === 'false'")
    page.press("End")
    page.wait("document.getElementById('live').getAttribute('aria-pressed') === 'true'")
    page.press("/")
    assert page.eval("document.activeElement.id") == "worker-filter"
    page.press("Escape")
    page.press("?")
    assert page.visible("#help")
    nodes = page.ask("readable")
    page.press("Escape")
    nodes += page.ask("readable")
    roles = {"button", "searchbox", "combobox", "checkbox", "radio", "link", "image", "img", "progressbar", "dialog"}
    assert not [node for node in nodes if node["role"] in roles and not node["name"].strip()]
    assert {"main", "navigation", "heading"} <= {node["role"] for node in nodes}
    # Wherever Tab goes, it is seen.
    for _ in range(12):
        page.press("Tab")
        assert page.eval("""(() => { const of = document.activeElement;
          const box = of.closest("label") ?? of;
          return [of, box].some((e) => getComputedStyle(e).outlineStyle !== "none"); })()"""), \
            page.eval("document.activeElement.outerHTML.slice(0, 200)")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_phone_and_colours(make_pool, controlled, look, dark):
    pool = shop(make_pool, workers=2, worker=["--status=" + "x" * 300])
    page = look(controlled(pool), phone=True, width=390, height=844, dark=dark)
    cards(page, 2)
    page.wait_text("#facts", "memory")
    assert page.eval("document.documentElement.scrollWidth") <= 390
    wide = page.eval("""[...document.querySelectorAll("main *")].filter((e) => e.checkVisibility() &&
        e.getBoundingClientRect().right > 391 && !e.closest(".table-wrap, .unseen")).map((e) => e.outerHTML.slice(0, 100))""")
    assert wide == []
    page.click(".card button")
    assert page.eval("document.getElementById('life').getBoundingClientRect().width") <= 390
    page.press("Escape")
    # Text can be read on what it stands on (WCAG AA: 4.5).
    ratios = page.eval("""(() => {
      const style = getComputedStyle(document.documentElement);
      const light = (name) => {
        const colour = style.getPropertyValue(`--${name}`).trim();
        const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16) / 255)
          .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const pairs = [["ink", "panel"], ["soft", "panel"], ["soft", "page"], ["bad", "panel"], ["bad", "bad-soft"],
        ["warn", "warn-soft"], ["ok", "ok-soft"], ["accent", "panel"], ["accent-ink", "accent"]];
      return pairs.map(([a, b]) => {
        const [x, y] = [light(a), light(b)];
        return [a, b, (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05)];
      });
    })()""")
    assert [each for each in ratios if each[2] < 4.5] == []
    background = page.eval("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 150) is dark


def test_history_and_its_filters(make_pool, make_agent, look, tmp_path):
    pool = shop(make_pool, workers=2)
    agent = make_agent(pool.socket_path, "--history", tmp_path / "shop.db")
    agent.wait_pool("shop", lambda p: p["ready"] == 2)
    pool.request("upgrade", id=1)
    agent.wait_pool("shop", lambda p: p["upgrades"] == 1 and len(p["workers"]) == 2)
    os.kill(pool.pids()[0], signal.SIGSEGV)
    agent.wait_pool("shop", lambda p: p["crashes"] == 1 and p["ready"] == 2)
    # Another agent with the same file knows only what is written there.
    assert agent.stop() == 0
    agent = make_agent(pool.socket_path, "--history", tmp_path / "shop.db")
    page = look(agent)
    cards(page, 2)
    page.wait_text("#history-body", "upgrade_started")
    page.wait_text("#history-body", "v0 → v1, smooth")
    page.fill("#history-filter", "SEGV")
    page.wait("document.querySelectorAll('#history-body tr').length === 1")
    page.fill("#history-filter", "")
    page.select("#history-kind", "crashes")
    page.wait("document.querySelectorAll('#history-body tr').length === 1")
    page.select("#history-kind", "lives")
    page.wait("document.querySelectorAll('#history-body tr').length === 3")
    page.select("#history-kind", "upgrades")
    page.wait_text("#history-body", "v0 → v1 smooth")
    # The timeline has them too.
    page.wait("document.getElementById('waterfall').getAttribute('aria-label').startsWith('5 lives')")
    assert "1 crash" in page.eval("document.getElementById('waterfall').getAttribute('aria-label')")
    page.click("#history-body button, #crashes summary")


def test_several_pools(make_pool, make_agent, look):
    first = make_pool(["-n", "1", "-m", "0.05"], ["/bin/sleep", "600"], name="first")
    first.wait_ready(1)
    agent = make_agent("--all", env={"TMPDIR": str(first.dir)})
    page = look(agent)
    cards(page, 1)
    second = make_pool(["-n", "2", "-m", "0.05"], ["/bin/sleep", "600"], name="second", directory=first.dir)
    second.wait_ready(2)
    page.wait("document.querySelectorAll('#pools button').length === 2", 30)
    page.press("]")
    cards(page, 2)
    assert page.text("#pool-title") == "second" and "pool=second" in page.eval("location.hash")
    page.click("#pools button")
    cards(page, 1)
    assert page.eval("document.querySelector('#pools [aria-current=true]').textContent").startswith("first")

// Chromium for the tests of the dashboard: commands come as lines of JSON on standard input, each
// gets one line as its answer. tests/integration/harness/browser.py is the other side.
//
//   node driver.mjs NODE_MODULES CHROMIUM PROFILE_DIRECTORY

import {createInterface} from "node:readline";
import {createRequire} from "node:module";
import {join} from "node:path";

const [modules, executablePath, profile] = process.argv.slice(2);
const {chromium} = createRequire(join(modules, "x.js"))("playwright-core");

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", `--disk-cache-dir=${profile}`],
});
const pages = new Map();
let nextPage = 1;

// Through the debugger's own protocol, as the page's policy lets no text be run as a script.
async function evaluate(entry, code) {
  const {result, exceptionDetails} = await entry.debugger.send("Runtime.evaluate",
      {expression: code, returnByValue: true, awaitPromise: true});
  if (exceptionDetails) {
    throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  }
  return result.value;
}

const VERBS = {
  async open({url, width = 1280, height = 900, dark = false, phone = false, calm = false}) {
    const context = await browser.newContext({viewport: {width, height}, colorScheme: dark ? "dark" : "light",
      isMobile: phone, hasTouch: phone, deviceScaleFactor: phone ? 2 : 1, reducedMotion: calm ? "reduce" : "no-preference",
      timezoneId: "UTC", locale: "en-GB"});
    const page = await context.newPage();
    page.setDefaultTimeout(15000);
    const entry = {context, page, errors: [], requests: [], debugger: await context.newCDPSession(page)};
    page.on("pageerror", (error) => entry.errors.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") entry.errors.push(message.text());
    });
    page.on("request", (request) => entry.requests.push(request.url()));
    const name = nextPage++;
    pages.set(name, entry);
    // Time on a processor: what others do on this machine does not count.
    await entry.debugger.send("Performance.enable", {timeDomain: "threadTicks"});
    await page.goto(url, {waitUntil: "load"});
    return name;
  },
  goto: async ({entry, url}) => { await entry.page.goto(url, {waitUntil: "load"}); },
  eval: ({entry, code}) => evaluate(entry, code),
  async wait({entry, code, timeout = 20000}) {
    const deadline = Date.now() + timeout;
    for (;;) {
      const value = await evaluate(entry, code);
      if (value) return value;
      if (Date.now() > deadline) throw new Error(`never true: ${code}`);
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  },
  click: async ({entry, selector}) => { await entry.page.locator(selector).first().click(); },
  fill: async ({entry, selector, text}) => { await entry.page.locator(selector).fill(text); },
  select: async ({entry, selector, value}) => { await entry.page.locator(selector).selectOption(value); },
  check: async ({entry, selector, on}) => { await entry.page.locator(selector).setChecked(on); },
  press: async ({entry, key}) => { await entry.page.keyboard.press(key); },
  move: async ({entry, selector, x, y}) => { await entry.page.locator(selector).hover({position: {x, y}}); },
  shot: async ({entry, path, full = false, clip}) => { await entry.page.screenshot({path, fullPage: full, clip}); },
  // What the page's thread has done since it was opened; TaskDuration are its seconds at work.
  async work({entry}) {
    const {metrics} = await entry.debugger.send("Performance.getMetrics");
    return Object.fromEntries(metrics.map(({name, value}) => [name, value]));
  },
  // What a screen reader is told of: role and name of every node.
  async readable({entry}) {
    const {nodes} = await entry.debugger.send("Accessibility.getFullAXTree");
    return nodes.filter((node) => !node.ignored)
      .map((node) => ({role: node.role?.value, name: node.name?.value ?? ""}));
  },
  errors: async ({entry}) => entry.errors,
  forget: async ({entry}) => entry.errors.splice(0),
  requests: async ({entry}) => entry.requests,
  async close({entry, page}) {
    await entry.context.close();
    pages.delete(page);
  },
};

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
answer({ready: browser.version()});
for await (const line of createInterface({input: process.stdin})) {
  const request = JSON.parse(line);
  try {
    answer({value: (await VERBS[request.do]({...request, entry: pages.get(request.page)})) ?? null});
  } catch (error) {
    answer({error: String(error.message ?? error)});
  }
}
await browser.close();

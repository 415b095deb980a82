// What every step of settings.mjs uses: a page whose console, network and policy
// violations are watched, axe, pictures, and a keyboard.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const pictures = process.env.WEBHOOKS_SCREENSHOTS;

export async function launch() {
  return chromium.launch({
    executablePath: process.env.WEBHOOKS_CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu"],
  });
}

export async function open(browser, url, { dark = false, width = 1280, height = 900 } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, reducedMotion: "reduce" });
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await context.newPage();
  page.problems = [];
  // Dialogs are accepted while a step expects them.
  page.dialogs = [];
  page.on("console", (message) => {
    if (message.type() === "error" || /content security policy/i.test(message.text()))
      page.problems.push(message.text());
  });
  page.on("pageerror", (error) => page.problems.push(String(error)));
  page.on("dialog", (dialog) => {
    page.dialogs.push(dialog.message() || dialog.type());
    return page.agrees ? dialog.accept() : dialog.dismiss();
  });
  // A page that is left aborts what it still asks for.
  page.on("requestfailed", (request) => {
    if (request.failure()?.errorText !== "net::ERR_ABORTED") page.problems.push(`failed: ${request.url()}`);
  });
  page.on("request", (request) => {
    if (new URL(request.url()).host !== new URL(url).host && !request.url().startsWith("data:"))
      page.problems.push(`another host: ${request.url()}`);
  });
  await page.goto(dark ? `${url}?theme=dark` : url);
  await connected(page);
  return page;
}

export const connected = (page) => page.locator("[data-phx-session].phx-connected #webhook-settings").waitFor();

// Does what leads to another address, and waits for the view there.
export async function leads(page, address, action) {
  await Promise.all([page.waitForURL(address), action()]);
  await connected(page);
}

// Cuts the socket, and says when the page has said so and has come back.
export async function cut(page, meanwhile = async () => {}) {
  await page.evaluate(() => {
    // As if the network were gone: a server that is told answers "normal", and stays left.
    const { socket } = window.liveSocket;
    socket.reconnectTimer.timerCalc = () => 700;
    socket.conn.onclose = null;
    socket.conn.close();
    socket.onConnClose({ code: 1006 });
  });
  await page.locator("#webhook-offline", { hasText: "The connection is lost" }).waitFor();
  await meanwhile();
  await page.locator("#webhook-offline").waitFor({ state: "hidden" });
  await connected(page);
}

// Everything that axe knows of WCAG 2.2 A and AA, and its best practices.
export async function accessible(page, name) {
  // Through the debugger's door: the page's policy lets no script in.
  const found = await page.evaluate(async (source) => {
    if (!window.axe) (0, eval)(source);
    return 1;
  }, axe).catch(() => null);
  assert.equal(found, 1, "axe could not be loaded");
  const { violations } = await page.evaluate(() =>
    window.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }),
  );
  const lines = violations.flatMap(({ id, help, nodes }) =>
    nodes.map(({ target, failureSummary }) => `${id}: ${help}\n  ${target}\n  ${failureSummary}`),
  );
  assert.deepEqual(lines, [], `${name}: axe found something`);
}

// Nothing is wider than the window: nobody scrolls sideways.
export async function fits(page, name) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert.ok(wide <= 0, `${name}: ${wide} px wider than the window`);
}

// What can be clicked is 24 px high and wide at least, links in a line of text aside.
export async function targets(page, name) {
  const small = await page.evaluate(() =>
    [...document.querySelectorAll("#webhook-settings :is(button, a, summary, select, textarea, input:not([type=hidden]))")]
      .filter((element) => element.checkVisibility() && !element.disabled)
      .map((element) => {
        const label = element.labels?.[0];
        const boxes = [element, ...(label ? [label] : [])].map((e) => e.getBoundingClientRect());
        const box = boxes.reduce((a, b) => (a.height >= b.height ? a : b));
        return { html: element.outerHTML.slice(0, 120), width: box.width, height: box.height };
      })
      .filter(({ width, height }) => width < 24 || height < 23.5),
  );
  assert.deepEqual(small, [], `${name}: targets that are too small`);
}

export async function checked(page, name) {
  await accessible(page, name);
  await fits(page, name);
  await targets(page, name);
}

export async function picture(page, name) {
  if (!pictures) return;
  await page.evaluate(() => document.activeElement?.blur?.());
  await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true, scale: "css" });
}

export function clean(page, name) {
  assert.deepEqual(page.problems, [], `${name}: the console, the network or the policy complains`);
}

// --- a keyboard

const focused = (page) =>
  page.evaluate(() => {
    const element = document.activeElement;
    const style = getComputedStyle(element);
    return {
      html: element.outerHTML.slice(0, 160),
      text: element.innerText?.trim() ?? "",
      id: element.id,
      ring: style.boxShadow !== "none" || style.outlineStyle !== "none",
    };
  });

// Tabs until what is wanted has the focus, which must be seen wherever it goes.
export async function tabTo(page, wanted, name, key = "Tab") {
  for (let step = 0; step < 150; step++) {
    const at = await focused(page);
    if (wanted.id ? at.id === wanted.id : wanted.text.test(at.text)) {
      assert.ok(at.ring, `${name}: the focus cannot be seen on ${at.html}`);
      return at;
    }
    await page.keyboard.press(key);
  }
  assert.fail(`${name}: the keyboard does not reach ${JSON.stringify(wanted.id ?? String(wanted.text))}`);
}

// LiveView 1.1 moves the focus once more, two frames later. What is typed elsewhere before
// that loses the focus, and a field without it takes the server's older value.
export async function focusIs(page, id) {
  await page.waitForFunction((id) => new RegExp(`^${id}$`).test(document.activeElement?.id), id, { timeout: 20000 });
  await page.evaluate(async () => {
    for (let frame = 0; frame < 4; frame++) await new Promise(requestAnimationFrame);
  });
}

// The settings page, used: US3.1 to US3.3, US4.1 and US4.2 of the specification, addresses, a
// socket that is cut in every view, the secret replaced, a delivery sent again, what failed
// recovered; the whole of it by keyboard; light, dark and narrow.
// Arguments: the URL of a page without webhooks, the URL of a receiver.
import assert from "node:assert/strict";
import { checked, clean, connected, cut, focusIs, launch, leads, open, tabTo } from "./page.mjs";

const [url, receiver] = process.argv.slice(2);
const browser = await launch();
const message = (page, text) =>
  page.locator("#webhook-message", { hasText: text }).waitFor({ timeout: 20000 });
const begin = Date.now();
const step = (text) => console.log(`${((Date.now() - begin) / 1000).toFixed(1).padStart(5)} s  ${text}`);

const webhook = /\/webhooks\/wh_[^/?]+(\?|$)/;
const deliveries = /\/webhooks\/deliveries(\?|$)/;
const delivery = /\/webhooks\/deliveries\/msg_/;
const text = async (page, selector) => (await page.textContent(selector)).trim();
const list = async (page) => {
  await page.goto(url);
  await connected(page);
};
const see = async (page, name) => {
  await list(page);
  await leads(page, webhook, () => page.click(`#webhook-settings tbody a:has-text('${name}')`));
};

async function add(page, path, name) {
  await leads(page, /\/new$/, () => page.click("#webhooks-add"));
  await page.fill("#webhook-url", `${receiver}${path}`);
  await page.fill("#webhook-name", name);
  await page.locator("#webhook-url-check", { hasText: "We will deliver to" }).waitFor();
  await leads(page, webhook, () => page.click("button[type=submit]"));
  await message(page, "Webhook added");
  assert.equal(await text(page, "#webhooks-title"), name);
  assert.ok(!page.url().includes("done="), "what was done is not said again on F5");
}

async function sendTest(page, text) {
  await page.click("#webhook-test-send");
  await page.locator("#webhook-test-result", { hasText: text }).waitFor({ timeout: 20000 });
}

async function fill(page) {
  await leads(page, /\/new$/, () => page.click("#webhooks-add"));
  await page.fill("#webhook-url", "http://user:pw@example.com/");
  await page.locator("#webhook-url-check", { hasText: "must not hold a user name" }).waitFor();
  await page.check("[id='webhook-event-traffic.spike']");
  await page.check("[id='webhook-event-traffic.drop']");
  await page.locator("#webhook-spike-figure", { hasText: "Now:" }).waitFor();
  await page.check("#webhook-goals-some");
  await page.locator("#webhook-goal-search").waitFor();
  // Searching is no saving, Enter included.
  await page.fill("#webhook-goal-search", "Goal 117");
  await page.locator("#webhook-goal-12").waitFor({ state: "detached" });
  await page.check("#webhook-goal-117");
  await page.press("#webhook-goal-search", "Enter");
  await page.fill("#webhook-goal-search", "");
  await page.locator("#webhook-goal-12").waitFor();
  assert.equal(await page.locator("#webhook-url-error").count(), 0, "Enter has saved");
  await page.click("#webhook-add-header");
  await focusIs(page, "webhook-header-1-name");
  await page.keyboard.type("X-Token");
}

async function form(page) {
  await fill(page);
  await checked(page, "the form");
  // The first field that is wrong gets the focus; each error stands by its field.
  await page.click("button[type=submit]");
  await focusIs(page, "webhook-url");
  await page.locator("#webhook-spike-value-error", { hasText: "Enter a number of visitors." }).waitFor();
  await checked(page, "the form with errors");
  await page.fill("#webhook-url", "bücher.example/hook");
  await page.locator("#webhook-url-check", { hasText: "xn--bcher-kva.example" }).waitFor();
  assert.equal(await page.locator("#webhook-url-error").count(), 0);

  // A cut socket loses nothing: goals that the search hid, rows that were added, the text
  // that is being typed.
  await page.fill("#webhook-spike-value", "300");
  await cut(page, () => page.type("#webhook-name", "Half a form"));
  assert.equal(await page.inputValue("#webhook-url"), "bücher.example/hook");
  assert.equal(await page.inputValue("#webhook-name"), "Half a form");
  assert.equal(await page.inputValue("#webhook-header-1-name"), "X-Token");
  assert.equal(await page.inputValue("#webhook-spike-value"), "300");
  await page.locator("#webhook-goals", { hasText: "1 of 121 goals chosen" }).waitFor();
  step("a form that outlasts a cut socket");

  // Unsaved edits ask before they go, and stay if the answer is no.
  await page.locator("#webhook-form[data-unsaved]").waitFor();
  await page.click("#webhook-cancel");
  await page.waitForFunction(() => true);
  assert.deepEqual(page.dialogs, ["beforeunload"]);
  assert.equal(await page.inputValue("#webhook-name"), "Half a form");
  page.agrees = true;
  await leads(page, url, () => page.click("#webhook-cancel"));
  page.agrees = false;
  page.dialogs.length = 0;
  step("unsaved edits ask");
}

async function secret(page) {
  await page.click("#webhook-reveal");
  await focusIs(page, "webhook-secret-1");
  const old = await page.inputValue("#webhook-secret-1");
  assert.match(old, /^whsec_/);
  await page.click("#webhook-secret button:has-text('Copy')");
  await page.locator("#webhook-secret-1-copied", { hasText: "Copied" }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), old);
  // A click selects the whole of it.
  await page.locator("#webhook-secret-1").evaluate((field) => field.setSelectionRange(0, 0));
  await page.click("#webhook-secret-1");
  const length = await page.locator("#webhook-secret-1").evaluate((f) => f.selectionEnd - f.selectionStart);
  assert.equal(length, old.length);
  await page.click("#webhook-rotate summary");
  await checked(page, "the secret's panel");
  await page.selectOption("#webhook-overlap", "3600");
  await page.click("text=Replace now");
  await message(page, "The secret is replaced");
  await page.locator("#webhook-secret", { hasText: "Two secrets sign now" }).waitFor();
  await page.click("#webhook-reveal");
  await page.locator("#webhook-secret-2").waitFor();
  assert.equal(await page.inputValue("#webhook-secret-2"), old);
  assert.notEqual(await page.inputValue("#webhook-secret-1"), old);
  await checked(page, "two secrets");
  await sendTest(page, "Delivered: your endpoint answered 200");
  step("the secret replaced with an overlap");
}

// From an empty list to a verified test, with no endpoint of one's own.
async function inspector(by, options = {}) {
  const page = await open(browser, url, options);
  const act = async (wanted, name) => {
    if (by === "mouse") return page.click(`#${wanted}`);
    await tabTo(page, { id: wanted }, name);
    await page.keyboard.press("Enter");
  };
  await page.locator("text=Create your first webhook").waitFor();
  const from = Date.now();
  await leads(page, /\/new$/, () => act("webhooks-add", "the empty list"));
  await act("webhook-test-address", "the form");
  await page.locator("#webhook-url-check", { hasText: "We will deliver to" }).waitFor();
  await leads(page, webhook, () => page.press("#webhook-url", "Enter"));
  await page.locator("#webhook-at-test-address").waitFor();
  await act("webhook-test-send", "one webhook");
  await page.locator("#webhook-test-attempt-answer", { hasText: "The signature fits." }).waitFor();
  const took = Date.now() - from;
  assert.ok(took <= 60_000, `${took} ms`);
  assert.match(await text(page, "#webhook-test-attempt-answer"), /webhook-signature: v1,.*"type":"webhook.test"/s);
  await checked(page, "a test address");
  step(`a verified test without an endpoint, by ${by}, ${took} ms`);
  page.agrees = true;
  await leads(page, url, () => page.click("#webhook-delete"));
  clean(page, `a test address by ${by}`);
}

async function owner() {
  const page = await open(browser, url);
  await checked(page, "the empty list");
  await form(page);

  // US3.1: add, with URL and subscriptions.
  await add(page, "/ok", "CRM");
  step("US3.1 added");

  // US4.1: the test arrives, and its result stands there, in the window, and the focus stays.
  await page.setViewportSize({ width: 1280, height: 720 });
  await page.focus("#webhook-test-send");
  const from = Date.now();
  await page.keyboard.press("Enter");
  await page.locator("#webhook-test-result", { hasText: "Delivered: your endpoint answered 200" }).waitFor();
  assert.ok(Date.now() - from < 5000, "within seconds");
  await focusIs(page, "webhook-test-send");
  const box = await page.locator("#webhook-test-attempt [class*=bg-green]").first().boundingBox();
  assert.ok(box.y > 0 && box.y + box.height < 720, "the result is on the screen");
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.click("#request-show");
  await page.locator("#request-curl").waitFor();
  await checked(page, "one webhook");
  await page.click("text=Hide request");
  step("US4.1 a test that arrives");
  await secret(page);

  // US3.2: edit, in force for the next event.
  await leads(page, /\/edit$/, () => page.click("#webhook-settings a:has-text('Edit')"));
  await page.fill("#webhook-name", "Sales");
  await leads(page, webhook, () => page.click("button[type=submit]"));
  await message(page, "Saved. The change applies from the next event.");
  assert.deepEqual(page.dialogs, []);
  assert.equal(await text(page, "#webhooks-title"), "Sales");
  await page.waitForFunction(() => document.title.startsWith("Sales · "));
  step("US3.2 edited");

  // US4.2: what fails says why, and what to do.
  await list(page);
  await add(page, "/missing", "Wrong path");
  await sendTest(page, "Not delivered: error status 404");
  await page.locator("#webhook-test-result", { hasText: "this path does not" }).waitFor();
  await checked(page, "a test that fails");
  step("US4.2 a test that fails, explained");

  // Switched off by 410; a test that succeeds switches it on.
  await list(page);
  await add(page, "/gone", "Moved away");
  await sendTest(page, "gone (410)");
  await page.locator("text=because your endpoint answered 410").waitFor();
  await checked(page, "switched off");
  await sendTest(page, "Delivered: your endpoint answered 200");
  await page.locator("#webhooks-title + div", { hasText: "Active" }).waitFor();
  step("switched off, and on again");

  return page;
}

const rows = (page, count) =>
  page.waitForFunction((count) => document.querySelectorAll("tbody tr").length === count, count);

async function repair(page) {
  await see(page, "Flaky");
  await leads(page, deliveries, () => page.click("text=See its deliveries"));
  await page.selectOption("#log-filter-state", "failed");
  await rows(page, 3);
  await page.waitForURL(/state=failed/);
  await checked(page, "the log");

  // Links are links: a new tab, Back and F5 find the same filters.
  const row = page.locator("tbody tr >> nth=0 >> a");
  const [tab] = await Promise.all([page.context().waitForEvent("page"), row.click({ modifiers: ["Control"] })]);
  await tab.waitForURL(delivery);
  await tab.close();
  await leads(page, delivery, () => row.click());
  await leads(page, /state=failed/, () => page.goBack());
  await rows(page, 3);
  await page.reload();
  await rows(page, 3);
  step("links, a tab, Back and F5");

  await leads(page, delivery, () => row.click());
  await page.click("#request-show");
  await page.locator("#request-curl").waitFor();
  await page.selectOption("#request-language-select", "python");
  await page.waitForFunction(() => document.querySelector("#request-verify").value.includes("hmac"));
  await checked(page, "a delivery");
  await page.click("#delivery-redeliver");
  await page.locator("#attempt-2", { hasText: "Delivered" }).waitFor({ timeout: 20000 });
  await checked(page, "a delivery with two attempts");
  step("a delivery sent again");

  await see(page, "Flaky");
  await page.click("#webhook-recover >> text=Count");
  await page.locator("#webhook-recover", { hasText: "2 deliveries to send again." }).waitFor();
  await checked(page, "recovering");
  await page.click("#webhook-recover-confirm");
  await message(page, "2 deliveries sent again.");
  await leads(page, deliveries, () => page.click("nav a:has-text('Deliveries')"));
  await page.selectOption("#log-filter-webhook", { label: "Flaky" });
  await page.waitForFunction(
    () => [...document.querySelectorAll("tbody tr")].filter((row) => /Delivered/.test(row.innerText)).length === 3,
  );
  await leads(page, deliveries, () => page.click("#log-clear"));
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length > 5);

  // Searched by its id.
  const id = await page.getAttribute("tbody tr >> nth=2", "id");
  await page.fill("#log-filter-id", id);
  await rows(page, 1);
  assert.equal(await page.getAttribute("tbody tr", "id"), id);
  step("what failed recovered");
}

// US3.3, and pausing.
async function remove(page) {
  await see(page, "Wrong path");
  await page.click("#webhook-pause");
  await message(page, "Paused.");
  await page.locator("#webhook-resume").waitFor();
  await checked(page, "a paused webhook");
  await page.click("#webhook-delete");
  assert.match(page.dialogs.pop(), /^Delete Wrong path and its log\? This cannot be undone\.$/);
  assert.equal(await text(page, "#webhooks-title"), "Wrong path");
  page.agrees = true;
  await leads(page, url, () => page.click("#webhook-delete"));
  page.agrees = false;
  await message(page, "Webhook deleted.");
  assert.equal(await page.locator("tbody >> text=Wrong path").count(), 0);
  await page.locator("text=100 % of").first().waitFor();
  const heights = await page.$$eval("tbody tr", (rows) => rows.map((row) => row.getBoundingClientRect().height));
  assert.ok(heights.every((height) => height <= 72), `rows of ${heights} px`);
  await checked(page, "the list");
  step("US3.3 deleted");
}

// Add, test, reveal, look into the log, delete: no mouse.
async function keyboard() {
  const page = await open(browser, url);
  const press = (key) => page.keyboard.press(key);
  const follow = (address) => leads(page, address, () => press("Enter"));
  await tabTo(page, { id: "webhooks-add" }, "the list");
  await follow(/\/new$/);
  await tabTo(page, { id: "webhook-url" }, "the form");
  await page.keyboard.type(`${receiver}/ok`);
  await tabTo(page, { id: "webhook-name" }, "the form");
  await page.keyboard.type("By keyboard");
  await tabTo(page, { id: "webhook-event-traffic.spike" }, "the form");
  await press("Space");
  await page.locator("#webhook-spike-value").waitFor();
  await tabTo(page, { id: "webhook-goals-all" }, "the form");
  await press("ArrowDown");
  await page.locator("#webhook-goal-search").waitFor();
  await tabTo(page, { id: "webhook-goal-1" }, "the goals");
  await press("Space");
  await tabTo(page, { id: "webhook-spike-value" }, "the threshold");
  await page.keyboard.type("300");
  await tabTo(page, { text: /^Add webhook$/ }, "the form");
  await follow(webhook);
  await message(page, "Webhook added");
  await tabTo(page, { id: "webhook-test-send" }, "the test");
  await press("Enter");
  await page.locator("#webhook-test-result", { hasText: "Delivered" }).waitFor();
  await tabTo(page, { id: "webhook-reveal" }, "the secret");
  await press("Enter");
  await focusIs(page, "webhook-secret-1");
  assert.match(await page.inputValue("#webhook-secret-1"), /^whsec_/);
  await tabTo(page, { text: /^Replace the secret$/ }, "the secret");
  await press("Enter");
  await tabTo(page, { id: "webhook-overlap" }, "the panel");
  await tabTo(page, { text: /^Deliveries$/ }, "the tabs", "Shift+Tab");
  await follow(deliveries);
  await tabTo(page, { text: /ago$|just now$/ }, "the log");
  await follow(delivery);
  await tabTo(page, { id: "request-show" }, "the delivery");
  await press("Enter");
  await focusIs(page, "request-title");
  await tabTo(page, { id: "request-curl" }, "the delivery");
  await tabTo(page, { text: /^Webhooks$/ }, "the tabs", "Shift+Tab");
  await follow(url);
  await tabTo(page, { text: /^By keyboard$/ }, "the list");
  await follow(webhook);
  await tabTo(page, { id: "webhook-delete" }, "one webhook");
  page.agrees = true;
  await follow(url);
  await message(page, "Webhook deleted.");
  clean(page, "by keyboard");
  step("the whole of it by keyboard");
}

// A socket that is cut in each view: the view stays where it is, and works on.
async function unplugged() {
  const page = await open(browser, url);
  await see(page, "Sales");
  const one = page.url();
  await leads(page, deliveries, () => page.click("text=See its deliveries"));
  await page.selectOption("#log-filter-state", "delivered");
  await page.waitForURL(/state=delivered/);
  const log = page.url();
  await leads(page, delivery, () => page.click("tbody tr >> nth=0 >> a"));

  for (const address of [url, one, `${one}/edit`, log, page.url(), `${url}/new`]) {
    await page.goto(address);
    await connected(page);
    await page.waitForFunction(() => document.title.includes(" · "));
    const title = await page.title();
    if (address === log) {
      await page.selectOption("#log-filter-status", "2");
      await page.waitForURL(/status=2/);
    }
    if (address.endsWith("/edit")) await page.fill("#webhook-name", "Edited");
    await cut(page);
    assert.equal(await page.title(), title);
    if (address === log) {
      assert.equal(await page.inputValue("#log-filter-state"), "delivered");
      assert.equal(await page.inputValue("#log-filter-status"), "2");
      await page.locator("tbody tr").first().waitFor();
    }
    if (address.endsWith("/edit")) {
      assert.equal(await page.inputValue("#webhook-name"), "Edited");
      page.agrees = true;
    }
  }
  step("a cut socket in every view");
}

// Every view once more: dark, and as narrow as 320 px.
async function look(name, options) {
  const page = await open(browser, url, options);
  await page.locator("text=100 % of").first().waitFor();
  const colour = await page.evaluate(() =>
    getComputedStyle(document.querySelector("#webhook-settings [class*=bg-white]")).backgroundColor);
  assert.equal(colour === "rgb(255, 255, 255)", !options.dark, `${name}: ${colour}`);
  await checked(page, `${name}: list`);
  await leads(page, webhook, () => page.click("#webhook-settings tbody a:has-text('Sales')"));
  await page.click("#webhook-reveal");
  await page.locator("#webhook-secret-1").waitFor();
  await page.click("#webhook-rotate summary");
  await sendTest(page, "Delivered");
  await checked(page, `${name}: one webhook`);
  await page.click("text=Hide secret");
  await leads(page, /\/edit$/, () => page.click("#webhook-settings a:has-text('Edit')"));
  await page.check("[id='webhook-event-traffic.spike']");
  await page.check("#webhook-goals-some");
  await page.locator("#webhook-goal-search").waitFor();
  const box = await page.locator("[id='webhook-event-traffic.drop']").evaluate((e) => getComputedStyle(e).backgroundColor);
  assert.equal(box === "rgb(255, 255, 255)", !options.dark, `${name}: check boxes are ${box}`);
  await page.click("#webhook-add-header");
  await focusIs(page, "webhook-header-.*-name");
  await page.fill("#webhook-url", "ftp://x");
  await page.locator("#webhook-url-check", { hasText: "must begin" }).waitFor();
  await page.click("button[type=submit]");
  await page.locator("#webhook-url-error").waitFor();
  await checked(page, `${name}: form`);
  page.agrees = true;
  await leads(page, deliveries, () => page.click("nav a:has-text('Deliveries')"));
  await page.locator("tbody tr").first().waitFor();
  await checked(page, `${name}: log`);
  await leads(page, delivery, () => page.click("tbody tr >> nth=0 >> a"));
  await page.click("#request-show");
  await page.locator("#request-curl").waitFor();
  await checked(page, `${name}: delivery`);
  clean(page, name);
  step(`${name}: every view`);
}

try {
  await inspector("mouse");
  await inspector("keyboard");
  await inspector("mouse", { width: 320, height: 700 });
  await inspector("mouse", { width: 550, height: 450 });
  const page = await owner();
  await repair(page);
  await remove(page);
  clean(page, "the owner");
  await keyboard();
  await unplugged();
  await look("dark", { dark: true });
  await look("narrow", { width: 320, height: 700 });
  // Twice as large, as WCAG 1.4.4 wants it.
  await look("zoomed", { width: 550, height: 450 });
  console.log("the settings page: everything was seen to work");
} catch (error) {
  console.error(error);
  const pages = browser.contexts().flatMap((context) => context.pages());
  if (process.env.WEBHOOKS_FAILED) await pages.at(-1)?.screenshot({ path: process.env.WEBHOOKS_FAILED, fullPage: true });
  process.exitCode = 1;
} finally {
  await browser.close();
}

// The settings page, used: US3.1 to US3.3, US4.1 and US4.2 of the specification, the
// secret replaced, a delivery sent again, what failed recovered; the whole of it by
// keyboard; light, dark and narrow.
// Arguments: the URL of a page without webhooks, the URL of a receiver.
import assert from "node:assert/strict";
import { checked, clean, focusIs, launch, open, picture, tabTo } from "./page.mjs";

const [url, receiver] = process.argv.slice(2);
const browser = await launch();
const message = (page, text) =>
  page.locator("#webhook-message", { hasText: text }).waitFor({ timeout: 20000 });
const begin = Date.now();
const step = (text) => console.log(`${((Date.now() - begin) / 1000).toFixed(1).padStart(5)} s  ${text}`);

async function add(page, path, name, more = async () => {}) {
  await page.click("#webhooks-add");
  await focusIs(page, "webhook-form-title");
  await page.fill("#webhook-url", `${receiver}${path}`);
  await page.fill("#webhook-name", name);
  await more();
  await page.locator("#webhook-url-check", { hasText: "We will deliver to" }).waitFor();
  await page.click("button[type=submit]");
  await message(page, "Webhook added");
  await focusIs(page, "webhook-title");
}

const list = async (page) => {
  await page.click("nav button:has-text('Webhooks')");
  await page.locator("#webhooks-add").waitFor();
};

async function sendTest(page, text) {
  await page.click("#webhook-test-send");
  await message(page, text);
}

async function owner() {
  const page = await open(browser, url);
  await checked(page, "the empty list");
  await picture(page, "empty");

  // US3.1: add, with URL and subscriptions.
  await page.click("#webhooks-add");
  await page.fill("#webhook-url", "http://user:pw@example.com/");
  await page.locator("#webhook-url-check", { hasText: "must not hold a user name" }).waitFor();
  await page.check("[id='webhook-event-traffic.spike']");
  await page.check("[id='webhook-event-traffic.drop']");
  await page.locator("#webhook-spike-figure", { hasText: "Now:" }).waitFor();
  await page.check("#webhook-goals-some");
  await page.locator("#webhook-goal-search").waitFor();
  // Searching is no saving, Enter included.
  await page.fill("#webhook-goal-search", "Goal 117");
  await page.locator("#webhook-goal-117").waitFor();
  await page.locator("#webhook-goal-12").waitFor({ state: "detached" });
  await page.press("#webhook-goal-search", "Enter");
  await page.fill("#webhook-goal-search", "");
  await page.locator("#webhook-goal-12").waitFor();
  if (await page.getByText("Not saved yet").count()) throw new Error("Enter has saved");
  await page.click("#webhook-add-header");
  await focusIs(page, "webhook-header-1-name");
  await checked(page, "the form");
  await page.click("button[type=submit]");
  await page.locator("#webhook-form-errors", { hasText: "Not saved yet" }).waitFor();
  await focusIs(page, "webhook-form-errors");
  await checked(page, "the form with errors");
  await page.fill("#webhook-url", "https://bücher.example/hook");
  await page.locator("#webhook-url-check", { hasText: "xn--bcher-kva.example" }).waitFor();
  assert.equal(await page.locator("#webhook-form-errors", { hasText: "The URL" }).count(), 0);
  await picture(page, "form");
  await page.click("form >> text=Cancel");
  await page.locator("#webhooks-add").waitFor();
  await add(page, "/ok", "CRM");
  step("US3.1 added");

  // US4.1: the test arrives, and its result stands there.
  const from = Date.now();
  await sendTest(page, "Delivered: your endpoint answered 200");
  assert.ok(Date.now() - from < 5000, "within seconds");
  await page.locator("#webhook-test-result", { hasText: "Total" }).waitFor();
  await page.click("text=Show the request body");
  await page.locator("#webhook-test-sample").waitFor();
  await checked(page, "one webhook");
  await picture(page, "test");
  step("US4.1 a test that arrives");

  // The secret: seen, copied, replaced.
  await page.click("#webhook-reveal");
  await focusIs(page, "webhook-secret-1");
  const old = await page.inputValue("#webhook-secret-1");
  assert.match(old, /^whsec_/);
  const copied = page.evaluate(() => {
    const status = document.getElementById("webhook-secret-1-copied");
    return new Promise((resolve) =>
      new MutationObserver(() => resolve(status.textContent)).observe(status, { childList: true }),
    );
  });
  await page.click("#webhook-secret button:has-text('Copy')");
  assert.equal(await copied, "Copied");
  const selected = await page.evaluate(() => String(window.getSelection()) || document.activeElement.value);
  assert.equal(selected, old);
  await page.click("#webhook-rotate");
  await focusIs(page, "webhook-rotate-title");
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

  // US3.2: edit, in force for the next event.
  await page.click("button:has-text('Edit')");
  await page.fill("#webhook-name", "Sales");
  await page.click("button[type=submit]");
  await message(page, "Saved. The change applies from the next event.");
  assert.equal((await page.textContent("#webhook-title")).trim(), "Sales");
  step("US3.2 edited");

  // US4.2: what fails says why, and what to do.
  await list(page);
  await add(page, "/missing", "Wrong path");
  await sendTest(page, "Not delivered: error status 404");
  await page.locator("#webhook-test-result", { hasText: "this path does not" }).waitFor();
  await checked(page, "a test that fails");
  await picture(page, "test-failed");
  step("US4.2 a test that fails, explained");

  // Switched off by 410; a test that succeeds switches it on.
  await list(page);
  await add(page, "/gone", "Moved away");
  await sendTest(page, "gone (410)");
  await page.locator("text=because your endpoint answered 410").waitFor();
  await checked(page, "switched off");
  await sendTest(page, "The webhook is switched on again.");
  step("switched off, and on again");

  return page;
}

async function repair(page) {
  await list(page);
  await page.click("button:has-text('Flaky')");
  await page.click("text=See its deliveries");
  await page.locator("#log-title").waitFor();
  await page.selectOption("#log-filter-state", "failed");
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 3);
  await checked(page, "the log");
  await page.click("tbody tr >> nth=0 >> button");
  await page.locator("#delivery-title").waitFor();
  await page.click("#delivery-request-show");
  await page.locator("#delivery-curl").waitFor();
  await page.selectOption("#delivery-language-select", "python");
  await page.waitForFunction(() => document.querySelector("#delivery-verify").value.includes("hmac"));
  await checked(page, "a delivery");
  await picture(page, "delivery");
  await page.click("#delivery-redeliver");
  await page.locator("#attempt-2", { hasText: "Delivered" }).waitFor({ timeout: 20000 });
  step("a delivery sent again");

  await list(page);
  await page.click("button:has-text('Flaky')");
  await page.click("#webhook-recover >> text=Count");
  await page.locator("#webhook-recover", { hasText: "2 deliveries to send again." }).waitFor();
  await checked(page, "recovering");
  await page.click("#webhook-recover-confirm");
  await message(page, "2 deliveries sent again.");
  await page.click("nav button:has-text('Deliveries')");
  await page.click("text=Clear filters");
  await page.waitForFunction(() => document.querySelector("#log-filter-state").value === "");
  await page.selectOption("#log-filter-webhook", { label: "Flaky" });
  await page.waitForFunction(
    () => [...document.querySelectorAll("tbody tr")].filter((row) => /Delivered/.test(row.innerText)).length === 3,
  );
  await page.click("text=Clear filters");
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length > 5);
  await picture(page, "log");
  step("what failed recovered");
}

// US3.3, and pausing.
async function remove(page) {
  await list(page);
  await page.click("button:has-text('Wrong path')");
  await page.click("#webhook-pause");
  await message(page, "Paused.");
  await focusIs(page, "webhook-resume");
  await page.click("#webhook-delete");
  await focusIs(page, "webhook-delete-title");
  await checked(page, "deleting");
  await page.click("#webhook-delete-confirm");
  await message(page, "Webhook deleted.");
  assert.equal(await page.locator("text=Wrong path").count(), 0);
  await page.locator("text=100 % of").first().waitFor();
  await checked(page, "the list");
  await picture(page, "list");
  step("US3.3 deleted");
}

// Add, test, reveal, look into the log, delete: no mouse.
async function keyboard() {
  const page = await open(browser, url);
  const press = (key) => page.keyboard.press(key);
  await tabTo(page, { id: "webhooks-add" }, "the list");
  await press("Enter");
  await focusIs(page, "webhook-form-title");
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
  await press("Enter");
  await message(page, "Webhook added");
  await focusIs(page, "webhook-title");
  await tabTo(page, { id: "webhook-test-send" }, "the test");
  await press("Enter");
  await message(page, "Delivered");
  await tabTo(page, { id: "webhook-reveal" }, "the secret");
  await press("Enter");
  await focusIs(page, "webhook-secret-1");
  assert.match(await page.inputValue("#webhook-secret-1"), /^whsec_/);
  await tabTo(page, { id: "webhook-rotate" }, "the secret");
  await press("Enter");
  await focusIs(page, "webhook-rotate-title");
  await tabTo(page, { text: /^Cancel$/ }, "the panel");
  await press("Enter");
  await focusIs(page, "webhook-rotate");
  await tabTo(page, { text: /^Deliveries$/ }, "the tabs", "Shift+Tab");
  await press("Enter");
  await focusIs(page, "log-title");
  await tabTo(page, { text: /20\d\d, / }, "the log");
  await press("Enter");
  await focusIs(page, "delivery-title");
  await tabTo(page, { id: "delivery-request-show" }, "the delivery");
  await press("Enter");
  await focusIs(page, "delivery-request-title");
  await tabTo(page, { id: "delivery-curl" }, "the delivery");
  await tabTo(page, { text: /Back to the deliveries/ }, "the delivery", "Shift+Tab");
  await press("Enter");
  await focusIs(page, "log-title");
  await tabTo(page, { text: /^Webhooks$/ }, "the tabs", "Shift+Tab");
  await press("Enter");
  await tabTo(page, { text: /^By keyboard$/ }, "the list");
  await press("Enter");
  await tabTo(page, { id: "webhook-delete" }, "one webhook");
  await press("Enter");
  await focusIs(page, "webhook-delete-title");
  await tabTo(page, { id: "webhook-delete-confirm" }, "deleting");
  await press("Enter");
  await message(page, "Webhook deleted.");
  clean(page, "by keyboard");
  step("the whole of it by keyboard");
}

// Every view once more: dark, and as narrow as 320 px.
async function look(name, options) {
  const page = await open(browser, url, options);
  await page.locator("text=100 % of").first().waitFor();
  const colour = await page.evaluate(() => getComputedStyle(document.querySelector("#webhook-settings")).backgroundColor);
  assert.equal(colour === "rgb(255, 255, 255)", !options.dark, `${name}: ${colour}`);
  await checked(page, `${name}: list`);
  await picture(page, `list-${name}`);
  await page.click("button:has-text('Sales')");
  await page.click("#webhook-reveal");
  await page.click("#webhook-rotate");
  await page.click("#webhook-delete");
  await page.locator("#webhook-delete-title").waitFor();
  await sendTest(page, "Delivered");
  await checked(page, `${name}: one webhook`);
  await page.click("#webhook-delete-panel >> text=Cancel");
  await picture(page, `test-${name}`);
  await page.click("button:has-text('Edit')");
  await page.check("[id='webhook-event-traffic.spike']");
  await page.check("#webhook-goals-some");
  await page.click("#webhook-add-header");
  await page.waitForFunction(() => /^webhook-header-.*-name$/.test(document.activeElement.id));
  await page.fill("#webhook-url", "ftp://x");
  await page.locator("#webhook-url-check", { hasText: "must begin" }).waitFor();
  await page.click("button[type=submit]");
  await page.locator("#webhook-form-errors", { hasText: "Not saved yet" }).waitFor();
  await checked(page, `${name}: form`);
  await page.click("nav button:has-text('Deliveries')");
  await page.locator("tbody tr").first().waitFor();
  await checked(page, `${name}: log`);
  await picture(page, `log-${name}`);
  await page.click("tbody tr >> nth=0 >> button");
  await page.click("#delivery-request-show");
  await page.locator("#delivery-curl").waitFor();
  await checked(page, `${name}: delivery`);
  clean(page, name);
  step(`${name}: every view`);
}

try {
  const page = await owner();
  await repair(page);
  await remove(page);
  clean(page, "the owner");
  await keyboard();
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

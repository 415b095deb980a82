// The settings page in a Plausible: a user logs in, adds a webhook, sends a test, copies the
// secret, sees a failure, at 1 280 and 390 px, light and dark. Every view has an address.
// Arguments: the URL of the page, an e-mail address, a password, the URL of a receiver
// that answers 200 at /ok and 404 at /missing.
import assert from "node:assert/strict";
import { clean, connected, launch, leads, picture } from "./page.mjs";

const [url, email, password, receiver] = process.argv.slice(2);
const browser = await launch();
const step = (text) => console.log(`    page: ${text}`);

// The rest of the page is Plausible's; what is ours must not complain.
const ours = (text) => /webhook/i.test(text);

async function logIn(options) {
  const context = await browser.newContext({ reducedMotion: "reduce", ...options });
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await context.newPage();
  page.problems = [];
  const complain = (text) => ours(text) && page.problems.push(text);
  page.on("console", (message) => message.type() === "error" && complain(message.text()));
  page.on("pageerror", (error) => complain(String(error.stack ?? error)));
  await page.goto(new URL("/login", url).href);
  await page.fill("input[name=email]", email);
  await page.fill("input[name=password]", password);
  await Promise.all([page.waitForURL((to) => !to.pathname.startsWith("/login")), page.press("input[name=password]", "Enter")]);
  await page.goto(url);
  await connected(page);
  return page;
}

// Nothing of ours stands out of the window. Plausible's own parts may, as they do on its
// other settings pages.
async function oursFits(page, name) {
  const wide = await page.evaluate(() => {
    // For screen readers only: clipped to a pixel, wherever its box ends.
    const clipped = (element) => {
      const hidden = element.closest(".sr-only");
      return hidden && getComputedStyle(hidden).position === "absolute";
    };
    return [...document.querySelectorAll("#webhook-settings, #webhook-settings *")]
      .filter((element) => element.checkVisibility() && !clipped(element))
      .filter((element) => !element.closest("[class*=overflow-x-auto]"))
      .filter((element) => element.getBoundingClientRect().right > window.innerWidth + 1)
      .map((element) => element.outerHTML.slice(0, 160));
  });
  assert.deepEqual(wide, [], `${name}: wider than the window`);
}

const message = (page, text) => page.locator("#webhook-message", { hasText: text }).waitFor();

async function add(page, path, name) {
  await leads(page, /\/settings\/webhooks\/new$/, () => page.click("#webhooks-add"));
  await page.fill("#webhook-url", `${receiver}${path}`);
  await page.fill("#webhook-name", name);
  await page.locator("#webhook-url-check", { hasText: "We will deliver to" }).waitFor();
  await leads(page, /\/webhooks\/wh_/, () => page.locator("#webhook-settings button[type=submit]").click());
  await message(page, "Webhook added");
}

async function sendTest(page, text) {
  await page.click("#webhook-test-send");
  await page.locator("#webhook-test-result", { hasText: text }).waitFor({ timeout: 20000 });
}

const page = await logIn({ viewport: { width: 1280, height: 900 } });
await oursFits(page, "the empty list");
await picture(page, "plausible-empty");
await add(page, "/ok", "CRM");
step("US3.1 added");
await page.waitForFunction(() => document.title.startsWith("CRM · "));
await sendTest(page, "Delivered: your endpoint answered 200");
await picture(page, "plausible-test");
step("US4.1 a test arrives");
await page.click("#webhook-reveal");
await page.click("#webhook-secret button:has-text('Copy')");
await page.locator("#webhook-secret-1-copied", { hasText: "Copied" }).waitFor();
step("the secret is copied");
await page.click("#webhook-settings a:has-text('Edit')");
await page.waitForURL(/\/edit$/);
await connected(page);
// Plausible's sidebar marks our entry in every view.
const entries = page.locator("[data-testid=site_settings_sidebar] a", { hasText: "Webhooks" });
const general = page.locator("[data-testid=site_settings_sidebar] a", { hasText: "General" });
assert.notEqual(await entries.first().getAttribute("class"), await general.first().getAttribute("class"));
await page.goto(url);
await connected(page);
await add(page, "/missing", "Wrong path");
await sendTest(page, "Not delivered: error status 404");
step("US4.2 a failure names its reason");
clean(page, "light");

for (const [name, options] of Object.entries({
  light: { viewport: { width: 1280, height: 900 } },
  dark: { viewport: { width: 1280, height: 900 }, colorScheme: "dark" },
  narrow: { viewport: { width: 390, height: 844 } },
})) {
  const other = await logIn(options);
  await other.getByText("CRM").first().waitFor();
  await oursFits(other, name);
  // A page without its styles is not the page.
  const display = await other.locator("#webhooks-add").evaluate((element) => getComputedStyle(element).borderRadius);
  assert.notEqual(display, "0px", `${name}: Plausible's style sheet has none of the page's classes`);
  await picture(other, `plausible-${name}`);
  clean(other, name);
  step(`shown ${name}`);
}
await browser.close();

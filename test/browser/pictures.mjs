// Takes the pictures of docs/screenshots from tools/screenshots/serve.exs.
// Arguments: the URL of its page, the folder.
import { connected, launch, leads, open } from "./page.mjs";

const [url, folder] = process.argv.slice(2);
const browser = await launch();

async function visit(page, address) {
  await page.goto(address);
  await connected(page);
  // The figures follow the first answer.
  await page.locator("#webhook-settings :text('Loading')").waitFor({ state: "hidden" });
  await page.waitForTimeout(500);
}

for (const [suffix, options] of Object.entries({
  "": {},
  "-dark": { dark: true },
  "-narrow": { width: 390, height: 844 },
})) {
  const page = await open(browser, url, options);
  const take = async (name) => {
    await page.evaluate(() => document.activeElement?.blur?.());
    await page.screenshot({ path: `${folder}/${name}${suffix}.png`, fullPage: true, scale: "css" });
  };
  await visit(page, url);
  await take("list");
  await leads(page, /\/wh_/, () => page.click("tbody a:has-text('CRM')"));
  const crm = page.url().replace(/[?].*/, "");
  await visit(page, url);
  await leads(page, /\/wh_/, () => page.click("tbody a:has-text('Staging')"));
  await page.click("#webhook-test-send");
  await page.locator("#webhook-test-attempt").waitFor({ timeout: 20000 });
  await page.waitForTimeout(500);
  await take("test");
  await visit(page, `${url}/deliveries`);
  await take("log");
  await visit(page, `${crm}/edit`);
  await take("form");
  await visit(page, `${url}/deliveries?webhook=${crm.split("/").at(-1)}&state=delivered`);
  await leads(page, /\/msg_/, () => page.click("tbody tr:nth-child(1) a"));
  await page.waitForTimeout(300);
  await take("delivery");
  await visit(page, `${url}/deliveries?state=failed`);
  await leads(page, /\/msg_/, () => page.click("tbody tr:nth-child(1) a"));
  await page.waitForTimeout(300);
  await take("delivery-failed");
}
await browser.close();

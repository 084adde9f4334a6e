// Opens /docs in Chromium, authorizes, tries `GET /tasks`, and tells as JSON what it saw.
// node docs_in_browser.mjs CHROMIUM URL KEY SCREENSHOT
import { chromium } from "playwright-core";

const [executablePath, url, key, screenshot] = process.argv.slice(2);
const origin = new URL(url).origin;
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 1600 } });
  page.setDefaultTimeout(20_000);
  const requests = [];
  const complaints = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("requestfailed", (request) => complaints.push(`${request.url()}: ${request.failure()?.errorText}`));

  await page.goto(`${url}/docs`);
  const title = await page.locator(".info .title").innerText();
  const operations = await page.locator(".opblock").count();
  await page.getByRole("button", { name: "Authorize" }).first().click();
  const dialog = page.locator(".dialog-ux");
  await dialog.locator("input").fill(key);
  await dialog.getByRole("button", { name: "Apply credentials" }).or(dialog.locator("button.authorize")).first().click();
  await dialog.locator("button.btn-done").click();

  const operation = page.locator("#operations-Tasks-listTasks");
  await operation.locator(".opblock-summary-control").first().click();
  await operation.locator("tr[data-param-name=app] input").fill("shop");
  await operation.locator("tr[data-param-name=limit] input").fill("2");
  const answered = page.waitForResponse((response) => response.url().startsWith(`${url}/tasks?`));
  await operation.getByRole("button", { name: "Execute" }).click();
  const answer = await answered;
  const live = operation.locator(".live-responses-table");
  await live.waitFor();
  const status = await live.locator(".response .response-col_status").first().innerText();
  const shown = await live.locator(".highlight-code pre").first().innerText();
  await live.scrollIntoViewIfNeeded();
  await page.screenshot({ path: screenshot });
  const stylesheet = await page.evaluate(() => getComputedStyle(document.querySelector(".opblock-get")).backgroundColor);
  console.log(
    JSON.stringify({
      title,
      operations,
      asked: answer.url(),
      answered: answer.status(),
      status,
      shown,
      stylesheet,
      elsewhere: requests.filter((each) => !each.startsWith("data:") && new URL(each).origin !== origin),
      requests: requests.length,
      complaints,
    }),
  );
} finally {
  await browser.close();
}

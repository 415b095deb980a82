// Validates documents with Ajv, openapi-schema-validator and AsyncAPI's own JSON Schema.
// stdin:  a line of JSON for each: kind ("schema", "openapi", "asyncapi" or "body"), document
//         (the text), for a body the type whose schema it must satisfy. Schemas come first.
// stdout: "N passed, N failed"; stderr: one line for each that failed.
// status: 0 when all passed and there was at least one.
import { createRequire } from "node:module";
import readline from "node:readline";

import { Validator } from "@seriousme/openapi-schema-validator";
import Ajv from "ajv";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const require = createRequire(import.meta.url);
const ajv = addFormats(new Ajv2020({ allErrors: true, allowUnionTypes: true }));
const ids = {};

const check = {
  schema(document) {
    ajv.addSchema(document);
    ids[document.properties.type.const] = document.$id;
    const validate = ajv.getSchema(document.$id); // compiles it
    return document.examples.filter((example) => !validate(example)).map(JSON.stringify);
  },
  async openapi(document) {
    const { valid, errors } = await new Validator().validate(document);
    return valid ? [] : [JSON.stringify(errors)];
  },
  asyncapi(document) {
    const { schemasWithoutId } = require("@asyncapi/specs");
    const validate = addFormats(new Ajv({ strict: false })).compile(schemasWithoutId["3.0.0"]);
    return validate(document) ? [] : [JSON.stringify(validate.errors)];
  },
  body(document, type) {
    const validate = ajv.getSchema(ids[type]);
    return validate(document) ? [] : [JSON.stringify(validate.errors)];
  },
};

let passed = 0;
let failed = 0;
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { kind, document, type } = JSON.parse(line);
  const errors = await check[kind](JSON.parse(document), type);
  if (errors.length === 0) passed += 1;
  else {
    failed += 1;
    console.error(`${kind}: ${errors.join("; ").slice(0, 2000)}`);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;

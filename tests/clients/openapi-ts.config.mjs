// For @hey-api/openapi-ts. The extension is for modules that Node runs without a bundler.

export default {
  input: process.env.OPENAPI_DOCUMENT,
  output: { path: "hey-api", module: { extension: ".js" } },
};

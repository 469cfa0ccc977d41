// @ts-nocheck
// The description of the REST interface, as something to check answers with.
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const METHODS = ["get", "put", "post", "delete", "patch"];

export class Description {
  constructor(document) {
    this.document = document;
    this.ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: true });
    addFormats(this.ajv);
    for (const format of ["int32", "int64", "uint32", "uint64", "double", "float"]) this.ajv.addFormat(format, true);
    this.ajv.addSchema(document, "openapi");
  }

  /** Every operation, as "POST /events". */
  operations() {
    return Object.entries(this.document.paths).flatMap(([path, methods]) =>
      METHODS.filter((method) => methods[method]).map((method) => `${method.toUpperCase()} ${path}`),
    );
  }

  /** What is wrong with an answer; undefined when it is as described. */
  fault(method, path, status, body) {
    const operation = this.document.paths[path][method.toLowerCase()];
    const response = operation.responses[status];
    if (!response) return `${method} ${path} is not described to answer ${status}`;
    if (!response.content?.["application/json"]) return undefined;
    const place = ["paths", path, method.toLowerCase(), "responses", status, "content", "application/json", "schema"];
    return this.mismatch(place, body);
  }

  /** What is wrong with a value for the schema at a place. */
  mismatch(place, value) {
    const pointer = place.map((step) => String(step).replaceAll("~", "~0").replaceAll("/", "~1")).map(encodeURIComponent);
    const validate = this.ajv.compile({ $ref: `openapi#/${pointer.join("/")}` });
    return validate(value) ? undefined : `${place.join(" ")}: ${this.ajv.errorsText(validate.errors)}`;
  }

  /** A body made of the examples of a schema's properties, as a page to try calls out makes it. */
  exampleOf(name) {
    const resolve = (schema) => {
      const found = schema.$ref ? schema.$ref.slice(2).split("/").reduce((value, step) => value[step], this.document) : schema;
      return found.allOf ? Object.assign({}, ...found.allOf.map(resolve), found) : found;
    };
    const example = (schema) => {
      const { example: given, enum: values, type, properties } = resolve(schema);
      if (given !== undefined) return given;
      if (values) return values[0];
      const kind = Array.isArray(type) ? type[0] : type;
      if (kind === "object") return Object.fromEntries(Object.entries(properties ?? {}).map(([key, value]) => [key, example(value)]));
      return { string: "string", integer: 1, number: 1, boolean: true, array: [] }[kind];
    };
    return example(this.document.components.schemas[name]);
  }
}

// Prints the fields of an endpoint in a ServiceMonitor as a JSON schema, from the types of the Prometheus operator.
//
// usage: endpoint.mjs    (in a folder with @kubernetes-models/prometheus-operator and typescript)

import ts from "typescript";

const from = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
const file = `${process.cwd()}/endpoint.ts`;
const options = { strict: true, skipLibCheck: true, module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2022 };
const host = ts.createCompilerHost(options);
const { getSourceFile } = host;
host.getSourceFile = (name, ...rest) =>
  name === file ? ts.createSourceFile(name, `export type Endpoint = import("${from}").IEndpoint;`, options.target) : getSourceFile(name, ...rest);
const program = ts.createProgram([file], options, host);
const checker = program.getTypeChecker();

function schema(type) {
  type = checker.getNonNullableType(type);
  if (type.isUnion()) {
    const [texts, others] = [type.types.filter((one) => one.isStringLiteral()), type.types.filter((one) => !one.isStringLiteral())];
    if (!others.length) return { enum: texts.map((one) => one.value).sort() };
    const types = [...new Set(others.map((one) => schema(one).type))].sort();
    return { type: types.length === 1 ? types[0] : types };
  }
  if (type.flags & ts.TypeFlags.StringLike) return { type: "string" };
  if (type.flags & ts.TypeFlags.NumberLike) return { type: "number" };
  if (type.flags & ts.TypeFlags.BooleanLike) return { type: "boolean" };
  if (checker.isArrayType(type)) return { items: schema(checker.getTypeArguments(type)[0]), type: "array" };
  const any = type.getStringIndexType();
  if (any) return { additionalProperties: schema(any), type: "object" };
  const fields = type.getProperties().map((field) => [field.name, schema(checker.getTypeOfSymbol(field))]);
  if (!fields.length) throw new Error(`${checker.typeToString(type)} has no fields`);
  return { additionalProperties: false, properties: Object.fromEntries(fields.sort()), type: "object" };
}

const [symbol] = checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)));
console.log(JSON.stringify(schema(checker.getDeclaredTypeOfSymbol(symbol)), null, 1));

// Makes contract.json of a full OpenAPI document of OpenCode 2:
//   node test/rig/opencode-2/make-contract.mjs <openapi.json>
// The document that the present one was made of is the types and paths of 2.1.2, read out of the Python SDK
// opencode-python-sdk 0.2.3 (PyPI), which is generated from that server. Kept: the routes and events that we use, and
// what they refer to. Tightened: a field that the SDK lets be null is only optional, a constant `type` is required, the
// SDK's catch-alls (`Unknown…`) go. An object with `properties` has no others; each route may answer what `errors` lists too.
import { readFileSync, writeFileSync } from 'node:fs';
import process from 'node:process';

const ROUTES = [
  'GET /api/info',
  'GET /api/session',
  'POST /api/session',
  'GET /api/session/active',
  'GET /api/session/{sessionID}',
  'PATCH /api/session/{sessionID}',
  'DELETE /api/session/{sessionID}',
  'POST /api/session/{sessionID}/fork',
  'GET /api/session/{sessionID}/diff',
  'POST /api/session/{sessionID}/agent',
  'POST /api/session/{sessionID}/model',
  'GET /api/session/{sessionID}/message',
  'GET /api/session/{sessionID}/message/{messageID}',
  'POST /api/session/{sessionID}/prompt',
  'POST /api/session/{sessionID}/compact',
  'POST /api/session/{sessionID}/interrupt',
  'GET /api/session/{sessionID}/permission',
  'POST /api/session/{sessionID}/permission/{requestID}/reply',
  'GET /api/session/{sessionID}/form',
  'POST /api/session/{sessionID}/form/{formID}/reply',
  'DELETE /api/session/{sessionID}/form/{formID}',
  'GET /api/agent',
  'GET /api/model',
  'GET /api/fs/list',
  'GET /api/fs/find',
  'GET /api/fs/read/*',
  'GET /api/event',
  'GET /api/experimental/session/{sessionID}/log',
];

/** Of the events: ours are about sessions, permissions, forms and the stream itself. */
const EVENTS = /^(session|permission|form)\.|^server\.connected$|^location\.shutdown$/;

/** Fields that reach no tool of ours, and would bring a third of all types along. */
const OPEN = new Set(['ProviderRequest', 'ModelSettings', 'ModelCompatibility', 'ShellInfo', 'ModelCost']);

const [path] = process.argv.slice(2);
if (path === undefined) throw new Error('Expected the path of an OpenAPI document');
const full = JSON.parse(readFileSync(path, 'utf8'));
const schemas = full.components.schemas;
const defs = {};

function nameOf(schema) {
  return schema.$ref?.split('/').at(-1);
}

function tighten(schema) {
  const name = nameOf(schema);
  if (name !== undefined) {
    if (OPEN.has(name)) return {};
    if (!(name in defs)) {
      defs[name] = {};
      defs[name] = tighten(schemas[name]);
    }
    return { $ref: `#/$defs/${name}` };
  }
  const variants = (schema.anyOf ?? schema.oneOf)?.filter(
    (one) => one.type !== 'null' && !/^Unknown(?!ErrorBody)/.test(nameOf(one) ?? ''),
  );
  if (variants) return variants.length === 1 ? tighten(variants[0]) : { anyOf: variants.map(tighten) };
  if ('const' in schema) return { const: schema.const };
  if (schema.enum) return { enum: schema.enum };
  if (schema.type === 'array') return { type: 'array', items: tighten(schema.items ?? {}) };
  if (schema.type !== 'object') return schema.type === undefined ? {} : { type: schema.type };
  if (!schema.properties) {
    const values = typeof schema.additionalProperties === 'object' ? tighten(schema.additionalProperties) : {};
    return { values };
  }
  const constant = Object.keys(schema.properties).filter((key) => 'const' in schema.properties[key]);
  return object(schema.properties, [...new Set([...constant, ...(schema.required ?? [])])]);
}

function object(properties, required) {
  const tightened = Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, tighten(value)]));
  return { properties: tightened, ...(required.length > 0 ? { required } : {}) };
}

function route(name) {
  const [method, path] = name.split(' ');
  const operation = full.paths[path]?.[method.toLowerCase()];
  if (!operation) throw new Error(`The document has no ${name}`);
  const query = (operation.parameters ?? []).filter((parameter) => parameter.in === 'query');
  const body = operation.requestBody?.content['application/json'].schema;
  const answers = Object.entries(operation.responses).flatMap(([status, { content }]) => {
    const schema = content && Object.values(content)[0].schema;
    const answer = schema && !content['text/event-stream'] ? tighten(schema) : null;
    return JSON.stringify(answer) === JSON.stringify(ERRORS[status]) ? [] : [[status, answer]];
  });
  return {
    loads: operation['x-location']?.split(' ')[0] ?? 'nothing',
    ...(query.length > 0
      ? {
          query: object(
            Object.fromEntries(query.map(({ name, schema }) => [name, schema])),
            query.filter(({ required }) => required).map(({ name }) => name),
          ),
        }
      : {}),
    ...(body ? { body: tighten(body), bodyRequired: operation.requestBody.required } : {}),
    answers: Object.fromEntries(answers),
  };
}

const ERRORS = {
  400: tighten({ $ref: 'InvalidRequestErrorBody' }),
  401: tighten({ $ref: 'UnauthorizedErrorBody' }),
};
const events = {};
for (const reference of schemas.Event.oneOf) {
  const { properties, required } = schemas[nameOf(reference)];
  const type = properties.type?.const;
  if (type === undefined || !EVENTS.test(type)) continue;
  const data = nameOf(properties.data) === undefined ? properties.data : schemas[nameOf(properties.data)];
  events[type] = { durable: required.includes('durable'), data: tighten(data) };
}
const routes = Object.fromEntries(ROUTES.map((name) => [name, route(name)]));
const contract = {
  note: `Made by make-contract.mjs of the types and paths of OpenCode ${full.info.version}; the script says of what.`,
  version: full.info.version,
  errors: ERRORS,
  routes,
  events,
  $defs: Object.fromEntries(Object.entries(defs).sort(([a], [b]) => (a < b ? -1 : 1))),
};
// One line for each route, event and type: a diff that can be read, and half the size.
const lines = (table) =>
  Object.entries(table)
    .map(([key, value]) => `    ${JSON.stringify(key)}: ${JSON.stringify(value)}`)
    .join(',\n');
const sections = ['errors', 'routes', 'events', '$defs'].map(
  (key) => `  ${JSON.stringify(key)}: {\n${lines(contract[key])}\n  }`,
);
const head = ['note', 'version'].map((key) => `  ${JSON.stringify(key)}: ${JSON.stringify(contract[key])}`);
writeFileSync(new URL('contract.json', import.meta.url), `{\n${[...head, ...sections].join(',\n')}\n}\n`);

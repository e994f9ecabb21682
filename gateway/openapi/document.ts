import { z } from 'zod';
import { errorStatuses } from '../errors.ts';
import type { OptionLimits } from '../request/options.ts';
import { formOf, ROUTES, type Route } from '../routes.ts';
import { requestBodies } from './bodies.ts';

type Json = Readonly<Record<string, unknown>>;

const OWN: readonly { path: string; summary: string; type: string; statuses: Readonly<Record<number, string>> }[] = [
  { path: '/health', summary: 'The process is alive', type: 'application/json', statuses: { 200: 'Yes' } },
  {
    path: '/ready',
    summary: 'Requests can be served',
    type: 'application/json',
    statuses: { 200: 'At least one backend is up', 503: 'No backend is up, or the gateway is stopping' },
  },
  {
    path: '/openapi.json',
    summary: 'This document',
    type: 'application/json',
    statuses: { 200: 'OpenAPI 3.1' },
  },
];

const ERROR_SCHEMA = z.object({
  error: z.looseObject({
    message: z.string(),
    type: z.string().describe('Starts with gateway_ for the gateway’s own errors'),
    param: z.string().nullish(),
    code: z.union([z.int(), z.string()]).nullish().describe('The status'),
  }),
});

/** On the paths of Anthropic's API. */
const ANTHROPIC_ERROR_SCHEMA = z.object({
  type: z.literal('error'),
  error: z.looseObject({ type: z.string(), message: z.string() }),
});

/** What vLLM says of a path or method that the model it serves does not have. */
const DETAIL_SCHEMA = z.looseObject({ detail: z.unknown() });

/** The gateway as an OpenAPI 3.1 document: the route table, the schemas of bodies and the table of errors. */
export function openApiDocument(limits: OptionLimits): Json {
  const bodies = requestBodies(limits);
  const paths: Record<string, Record<string, Json>> = {};
  for (const { path, summary, type, statuses } of OWN) {
    const responses = Object.fromEntries(
      Object.entries(statuses).map(([status, description]) => [
        status,
        { description, content: { [type]: { schema: { type: 'object' } } } },
      ]),
    );
    paths[path] = { get: { operationId: operationId('GET', path), tags: ['gateway'], summary, responses } };
  }
  for (const route of ROUTES) {
    const path = route.path.replaceAll(/:(\w+)/g, '{$1}');
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(route, bodies[route.path]) };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Crystal-KV gateway',
      version: '1',
      description:
        'An OpenAI endpoint in front of vLLM. Requests and answers pass unchanged; for anything else that a backend takes and gives, see its own documentation.',
    },
    paths,
    components: {
      schemas: {
        Error: jsonSchema(ERROR_SCHEMA, 'output'),
        AnthropicError: jsonSchema(ANTHROPIC_ERROR_SCHEMA, 'output'),
        Detail: jsonSchema(DETAIL_SCHEMA, 'output'),
      },
    },
  };
}

function operation(route: Route, body: z.ZodType | undefined): Json {
  const names = [...route.path.matchAll(/:(\w+)/g)].map(([, name]) => name);
  const type = route.body === 'upload' ? 'multipart/form-data' : 'application/json';
  return {
    operationId: operationId(route.method, route.path),
    tags: [route.path.startsWith('/v1/') ? 'openai' : 'vllm'],
    summary: SUMMARIES[route.body],
    ...(names.length > 0 && {
      parameters: names.map((name) => ({
        name,
        in: 'path',
        required: true,
        schema: { type: 'string', pattern: '^[A-Za-z0-9._:-]*[A-Za-z0-9]$' },
      })),
    }),
    ...(body !== undefined && {
      requestBody: { required: true, content: { [type]: { schema: jsonSchema(body, 'input') } } },
    }),
    responses: {
      200: {
        description: 'The response of the backend',
        content: {
          'application/json': { schema: {} },
          // vLLM's /ping answers with nothing
          ...(route.path === '/ping' && { 'text/plain': { schema: { type: 'string' } } }),
          ...(route.body === 'generation' && { 'text/event-stream': { schema: {} } }),
        },
      },
      ...Object.fromEntries(
        [...errorStatuses()].map(([status, messages]) => [status, errorResponse(route, messages.join('; '))]),
      ),
      default: errorResponse(route, 'An error of the backend, passed on'),
    },
  };
}

const SUMMARIES: Readonly<Record<Route['body'], string>> = {
  generation: 'Generates; streams if the body asks for it',
  option: 'Passed on to a backend',
  raw: 'Passed on to a backend',
  upload: 'Passed on to a backend while it arrives',
};

function errorResponse({ path }: Route, description: string): Json {
  // a backend's own is passed on, and not every server has Anthropic's there
  const names = [...(formOf(path) === 'messages' ? ['AnthropicError'] : []), 'Error', 'Detail'];
  const schema = { anyOf: names.map((name) => ({ $ref: `#/components/schemas/${name}` })) };
  return { description, content: { 'application/json': { schema } } };
}

function operationId(method: string, path: string): string {
  return method.toLowerCase() + path.replaceAll(/[^a-z0-9]+(\w?)/gi, (_, first: string) => first.toUpperCase());
}

function jsonSchema(schema: z.ZodType, io: 'input' | 'output'): Json {
  const {
    $schema,
    '~standard': _,
    ...rest
  } = z.toJSONSchema(schema, { io, reused: 'inline' }) as Record<string, unknown>;
  return rest;
}

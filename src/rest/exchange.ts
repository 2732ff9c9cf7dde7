// One HTTP request and its answer, as the bridge sees them: as Fastify hands them over, or straight from Node in front of Fastify's hooks. Always
// true: an answer is sent once and in one write, and not to a client that has left.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ContextValues } from '@connectrpc/connect';
import type { FastifyReply } from 'fastify';

/** As Fastify would make it of `application/json`, so that it is the same either way. */
export const JSON_TYPE = 'application/json; charset=utf-8';

/** Names in lower case. */
export type AnswerHeaders = Readonly<Record<string, number | string | string[] | undefined>>;

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Context values that the call starts with. */
  readonly values: ContextValues | undefined;
  /** What the answer carries whatever it is. */
  readonly headers: AnswerHeaders;
  /** From now on the response is written to directly. */
  hijack(): void;
  /** Sends the whole answer. */
  send(status: number, headers: AnswerHeaders, body: string): void;
}

/** Through Fastify, whose hooks see the answer. */
export class FastifyExchange implements Exchange {
  readonly values: ContextValues | undefined;
  readonly #reply: FastifyReply;

  constructor(reply: FastifyReply, values: ContextValues | undefined) {
    this.#reply = reply;
    this.values = values;
  }

  get request(): IncomingMessage {
    return this.#reply.request.raw;
  }

  get response(): ServerResponse {
    return this.#reply.raw;
  }

  get headers(): AnswerHeaders {
    return this.#reply.getHeaders();
  }

  hijack(): void {
    this.#reply.hijack();
  }

  send(status: number, headers: AnswerHeaders, body: string): void {
    const reply = this.#reply;
    if (reply.sent || reply.raw.destroyed) return;
    reply.code(status);
    for (const name in headers) reply.header(name, headers[name]);
    if (body === '') reply.send();
    else reply.send(body);
  }
}

/** Without Fastify: what Node gave. */
export class NodeExchange implements Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly values: ContextValues | undefined;
  readonly headers: AnswerHeaders;

  constructor(request: IncomingMessage, response: ServerResponse, values: ContextValues | undefined, headers: AnswerHeaders) {
    this.request = request;
    this.response = response;
    this.values = values;
    this.headers = headers;
  }

  hijack(): void {}

  send(status: number, headers: AnswerHeaders, body: string): void {
    const { response } = this;
    if (response.headersSent || response.destroyed) return;
    // A flat list: Node takes it as it is, where it copies an object.
    const list: (number | string | string[])[] = [];
    push(list, this.headers);
    push(list, headers);
    const length = Buffer.byteLength(body);
    // RFC 9110, 8.6: none with 204.
    if (status !== 204) list.push('content-length', String(length));
    response.writeHead(status, list as string[]);
    // The bytes of ASCII are the same either way, and Node writes them with a third of the room.
    response.end(body, length === body.length ? 'latin1' : 'utf8');
  }
}

function push(list: (number | string | string[])[], headers: AnswerHeaders): void {
  for (const name in headers) {
    const value = headers[name];
    if (value !== undefined) list.push(name, value);
  }
}

// What routes take that are written by hand, so that a wrong method is told apart from a path that nobody serves. Always true here: it knows each route that
// its Fastify has been given since `follow`, those of plugins too.
import type { FastifyInstance, RouteOptions } from 'fastify';

export class PlainRoutes {
  readonly #routes = new Map<string, { readonly path: RegExp; readonly methods: Set<string> }>();

  /** Notes the routes that `app` is given from now on, but for `others`, by their URL as it is registered. */
  follow(app: Pick<FastifyInstance, 'addHook'>, others: ReadonlySet<string>): void {
    app.addHook('onRoute', ({ url, method }: RouteOptions) => {
      if (others.has(url)) return;
      const route = this.#routes.get(url) ?? { path: expressionOf(url), methods: new Set() };
      this.#routes.set(url, route);
      for (const one of Array.isArray(method) ? method : [method]) route.methods.add(one);
    });
  }

  /** Methods that a path takes; none: nobody serves it. */
  methodsAt(path: string): readonly string[] {
    const found = [...this.#routes.values()].filter((route) => route.path.test(path));
    return [...new Set(found.flatMap(({ methods }) => [...methods]))].sort();
  }
}

/** Of a path as Fastify writes it: `:name` is a segment, `*` is all that follows. */
function expressionOf(url: string): RegExp {
  const parts = url.split(/(:\w+|\*)/).map((part) => {
    if (part === '*') return '.*';
    return part.startsWith(':') ? '[^/]+' : part.replace(/[^\w/-]/g, '\\$&');
  });
  return new RegExp(`^${parts.join('')}$`);
}

// Traces by OpenTelemetry, sent by OTLP over HTTP. Its packages are loaded when traces are on, and by nobody else. Always true: what is traced never waits
// for the collector, and is dropped where that is away; a caller's decision to sample is followed; nothing is registered globally.
import type { Attributes, Context, Span as OtelSpan, SpanContext, Tracer } from '@opentelemetry/api';

export interface TraceOptions {
  /** URL that spans are posted to. */
  readonly endpoint: string;
  /** Of the calls that come without a trace, the part that is sampled: 0 to 1. */
  readonly ratio: number;
  readonly version: string;
  /** What this node is called. */
  readonly node: string;
  /** Told of spans that could not be sent. */
  readonly onError: (error: unknown) => void;
}

type Facts = Readonly<Record<string, string | number | boolean | undefined>>;
type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** Spans that wait to be sent; what comes beyond is dropped. */
const MAX_WAITING = 8192;
const SEND_TIMEOUT_MS = 10_000;
/** At the end; a collector that did not take the last ones is hardly waited for. */
const CLOSE_TIMEOUT_MS = 2_000;
const CLOSE_TIMEOUT_AWAY_MS = 300;

export async function openTraces(options: TraceOptions) {
  const [api, core, { OTLPTraceExporter }, { resourceFromAttributes }, sdk] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/core'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
    import('@opentelemetry/sdk-trace-base'),
  ]);
  const { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, trace } = api;
  const propagator = new core.W3CTraceContextPropagator();
  const exporter = new OTLPTraceExporter({ url: options.endpoint, timeoutMillis: SEND_TIMEOUT_MS });
  const send = exporter.export.bind(exporter);
  // The library tells of failures to a logger for the whole process; ours is handed in.
  let isAway = false;
  exporter.export = (spans, done) =>
    send(spans, (result) => {
      isAway = result.code !== core.ExportResultCode.SUCCESS;
      if (isAway) options.onError(result.error);
      done(result);
    });
  const provider = new sdk.BasicTracerProvider({
    resource: resourceFromAttributes({
      'service.name': 'facefusion-jobs',
      'service.version': options.version,
      'service.instance.id': options.node,
    }),
    sampler: new sdk.ParentBasedSampler({ root: new sdk.TraceIdRatioBasedSampler(options.ratio) }),
    spanProcessors: [new sdk.BatchSpanProcessor(exporter, { maxQueueSize: MAX_WAITING, exportTimeoutMillis: SEND_TIMEOUT_MS })],
  });
  const tracer: Tracer = provider.getTracer('facefusion-jobs', options.version);

  const getter = {
    keys: (headers: Headers) => Object.keys(headers),
    // More than one is not ours to choose from: a trace of its own then.
    get: (headers: Headers, name: string) => headers[name],
  };

  function wrap(span: OtelSpan, context: Context) {
    const { traceId, spanId, traceFlags } = span.spanContext();
    return {
      traceId,
      traceparent: `00-${traceId}-${spanId}-${(traceFlags & TraceFlags.SAMPLED).toString(16).padStart(2, '0')}`,
      name: (endpoint: string) => void span.updateName(endpoint),
      child(name: string, facts: Facts = {}, startMs?: number) {
        const inner = tracer.startSpan(name, { attributes: attributesOf(facts), startTime: startMs }, context);
        return wrap(inner, trace.setSpan(context, inner));
      },
      end(facts: Facts = {}, failure?: string) {
        span.setAttributes(attributesOf(facts));
        if (failure !== undefined) {
          span.setAttribute('error.type', failure);
          span.setStatus({ code: SpanStatusCode.ERROR, message: failure });
        }
        span.end();
      },
    };
  }

  return {
    call(headers: Headers) {
      const outer = propagator.extract(ROOT_CONTEXT, headers, getter);
      const span = tracer.startSpan('call', { kind: SpanKind.SERVER }, outer);
      return wrap(span, trace.setSpan(outer, span));
    },
    job(traceparent: string, facts: Facts, startMs?: number) {
      const outer = propagator.extract(ROOT_CONTEXT, { traceparent }, getter);
      const submitted: SpanContext | undefined = trace.getSpanContext(outer);
      const links = submitted ? [{ context: submitted, attributes: { 'ffjobs.link': 'submitted by' } }] : [];
      const span = tracer.startSpan('job', { kind: SpanKind.CONSUMER, attributes: attributesOf(facts), startTime: startMs, links }, outer);
      return wrap(span, trace.setSpan(outer, span));
    },
    /** Sends what waits, for a while. */
    async [Symbol.asyncDispose](): Promise<void> {
      const timer = Promise.withResolvers<void>();
      const patienceMs = isAway ? CLOSE_TIMEOUT_AWAY_MS : CLOSE_TIMEOUT_MS;
      const late = setTimeout(() => {
        options.onError(new Error(`the collector did not take what was left within ${patienceMs / 1000} s`));
        timer.resolve();
      }, patienceMs);
      await Promise.race([provider.shutdown().catch(options.onError), timer.promise]);
      clearTimeout(late);
    },
  };
}

function attributesOf(facts: Facts): Attributes {
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined));
}

// Messages as the REST dialect writes them, so that `ffjobs --json` and `curl` show the same: snake_case, short lower-case enum values,
// null for what is unset, zero numbers printed. A oneof shows only the member that is set.
import type { DescEnum, DescField, DescMessage, JsonObject, JsonValue, Message, MessageShape } from '@bufbuild/protobuf';
import { toJson } from '@bufbuild/protobuf';
import { type Timestamp, timestampDate } from '@bufbuild/protobuf/wkt';

export function dialect<T extends DescMessage>(schema: T, message: MessageShape<T> & Message): JsonObject {
  return object(schema, toJson(schema, message, { useProtoFieldName: true, alwaysEmitImplicit: true }) as JsonObject);
}

/** `JOB_STATUS_QUEUED` of `JobStatus` as `queued`. */
export function enumName(schema: DescEnum, value: number): string {
  const name = schema.value[value]?.name ?? String(value);
  return name.slice(schema.sharedPrefix?.length ?? 0).toLowerCase();
}

/** `2025-04-05 14:15:00`, in UTC; empty: it is not set. */
export function timeInRow(time: Timestamp | undefined): string {
  return time === undefined ? '' : timestampDate(time).toISOString().slice(0, 19).replace('T', ' ');
}

function object(schema: DescMessage, json: JsonObject): JsonObject {
  const shaped: JsonObject = {};
  for (const field of schema.fields) {
    const value = json[field.name];
    if (value === undefined) {
      if (field.oneof === undefined) shaped[field.name] = null;
    } else {
      shaped[field.name] = fieldValue(field, value);
    }
  }
  return shaped;
}

function fieldValue(field: DescField, value: JsonValue): JsonValue {
  if (field.fieldKind === 'list') return (value as JsonValue[]).map((item) => scalar(field.message ?? field.enum, item));
  if (field.fieldKind === 'map') {
    return Object.fromEntries(Object.entries(value as JsonObject).map(([key, item]) => [key, scalar(field.message ?? field.enum, item)]));
  }
  return scalar(field.message ?? field.enum, value);
}

function scalar(schema: DescMessage | DescEnum | undefined, value: JsonValue): JsonValue {
  if (schema?.kind === 'message' && !schema.typeName.startsWith('google.protobuf.')) return object(schema, value as JsonObject);
  if (schema?.kind === 'enum' && typeof value === 'string') return value.slice(schema.sharedPrefix?.length ?? 0).toLowerCase();
  return value;
}

/** JSON of the REST dialect as `fromJson` takes it: enum values get their prefix and their case. What does not fit stays, for `fromJson` to refuse. */
export function protoJson(schema: DescMessage, json: JsonValue): JsonValue {
  if (typeof json !== 'object' || json === null || Array.isArray(json) || schema.typeName.startsWith('google.protobuf.')) return json;
  const fields = new Map(schema.fields.flatMap((field) => [field.name, field.jsonName].map((name) => [name, field])));
  return Object.fromEntries(
    Object.entries(json).map(([name, value]) => {
      const field = fields.get(name);
      const inner = field && (field.fieldKind === 'map' ? undefined : (field.message ?? field.enum));
      if (!inner) return [name, value];
      return [name, Array.isArray(value) ? value.map((item) => protoValue(inner, item)) : protoValue(inner, value)];
    }),
  );
}

function protoValue(schema: DescMessage | DescEnum, value: JsonValue): JsonValue {
  if (schema.kind === 'message') return protoJson(schema, value);
  if (typeof value !== 'string') return value;
  const full = `${schema.sharedPrefix ?? ''}${value}`.toUpperCase();
  return schema.values.some(({ name }) => name === full) ? full : value;
}

// Messages to JSON text in the REST dialect. Always true: every field of a message is printed, under its proto name, and what is not set is null
// (an enum's zero value named *_UNSPECIFIED counts as not set); everything else is ProtoJSON (https://protobuf.dev/programming-guides/json/),
// with enum values in lower case and without the prefix they share. Writers are compiled from descriptors once and build strings directly.
import {
  type DescEnum,
  type DescEnumValue,
  type DescField,
  type DescMessage,
  fromBinary,
  isFieldSet,
  type Message,
  type MessageShape,
  type Registry,
  ScalarType,
  toJson,
} from '@bufbuild/protobuf';
import { Edition, FeatureSet_FieldPresence, isWrapperDesc, type Timestamp } from '@bufbuild/protobuf/wkt';
import { isoTime } from '../iso-time.ts';

/** Writes messages, or single fields of them, as JSON text. `Any`s are opened when the registry knows their type, else they stay base64. */
export interface JsonWriter {
  /** The compiled serializer of a message type. It throws when a value is outside its type's range, for example a Timestamp in the year 10000. */
  message<D extends DescMessage>(desc: D): (message: MessageShape<D>) => string;
  /** The compiled serializer of one field's value, taken from the message that holds it. */
  field(field: DescField): (message: Message) => string;
}

// biome-ignore lint/suspicious/noExplicitAny: writers are chosen by descriptor, so the value's type is known there and nowhere else
type Write = (value: any) => string;
// biome-ignore lint/suspicious/noExplicitAny: the same
type Properties = any;

export function createJsonWriter(registry?: Registry): JsonWriter {
  const messages = new Map<DescMessage, Write>();

  function message(desc: DescMessage): Write {
    const known = messages.get(desc);
    if (known) return known;
    // Recursive types find this while they are being compiled.
    messages.set(desc, (value) => messages.get(desc)!(value));
    const compiled = compile(desc);
    messages.set(desc, compiled);
    return compiled;
  }

  function compile(desc: DescMessage): Write {
    const custom = wellKnown(desc);
    if (custom) return custom;
    const parts = desc.fields.map((field, i) => fieldOf(field, `${i ? ',' : '{'}${JSON.stringify(field.name)}:`));
    if (parts.length === 0) return () => '{}';
    return (value) => {
      let out = '';
      for (let i = 0; i < parts.length; i++) out += parts[i]!(value);
      return `${out}}`;
    };
  }

  function wellKnown(desc: DescMessage): Write | undefined {
    switch (desc.typeName) {
      case 'google.protobuf.Timestamp':
        return (value) => timestamp(desc, value);
      case 'google.protobuf.FieldMask':
        return (value) => text((value.paths as string[]).join(','));
      case 'google.protobuf.Any':
        return any;
      case 'google.protobuf.Duration':
      case 'google.protobuf.Struct':
      case 'google.protobuf.Value':
      case 'google.protobuf.ListValue':
        return (value) => JSON.stringify(toJson(desc, value));
      default:
        return isWrapperDesc(desc) ? fieldOf(desc.fields[0]!, '') : undefined;
    }
  }

  function any({ typeUrl, value }: { typeUrl: string; value: Uint8Array }): string {
    const head = `{"@type":${text(typeUrl)}`;
    const desc = registry?.getMessage(typeUrl.slice(typeUrl.lastIndexOf('/') + 1));
    if (!desc) return typeUrl === '' ? '{}' : `${head},"value":${base64(value)}}`;
    const body = message(desc)(fromBinary(desc, value));
    if (wellKnown(desc)) return `${head},"value":${body}}`;
    return body === '{}' ? `${head}}` : `${head},${body.slice(1)}`;
  }

  /** Reads the field from its message and writes it, after `key`. Most fields are not set, and then it is one text that is there already. */
  function fieldOf(field: DescField, key: string): Write {
    const name = field.localName;
    const unset = `${key}null`;
    if (field.fieldKind === 'list') {
      const element = field.listKind === 'message' ? messageValue(field, field.message) : single(field.listKind, field, false);
      const none = `${key}[]`;
      return (holder: Properties) => {
        const items = holder[name];
        if (items.length === 0) return none;
        let out = `${key}[${element(items[0])}`;
        for (let i = 1; i < items.length; i++) out += `,${element(items[i])}`;
        return `${out}]`;
      };
    }
    if (field.fieldKind === 'map') {
      const element = field.mapKind === 'message' ? messageValue(field, field.message) : single(field.mapKind, field, false);
      const none = `${key}{}`;
      return (holder: Properties) => {
        const entries = holder[name];
        let out = '';
        for (const one of Object.keys(entries)) out += `${out ? ',' : `${key}{`}${text(one)}:${element(entries[one])}`;
        return out ? `${out}}` : none;
      };
    }
    if (field.oneof) {
      const group = field.oneof.localName;
      const write = field.fieldKind === 'message' ? messageValue(field, field.message) : single(field.fieldKind, field, true);
      return (holder: Properties) => (holder[group].case === name ? key + write(holder[group].value) : unset);
    }
    let write: Write;
    if (field.fieldKind === 'message') {
      // A singular wrapper is held as its bare scalar.
      write = isWrapperDesc(field.message) ? scalar(field.message.fields[0]!.scalar!) : messageValue(field, field.message);
    } else write = single(field.fieldKind, field, true);
    if (field.presence === FeatureSet_FieldPresence.IMPLICIT) return (holder: Properties) => key + write(holder[name]);
    // Outside proto3 an unset field shows its default, inherited from the prototype.
    if (field.parent.file.edition !== Edition.EDITION_PROTO3)
      return (holder: Properties) => (isFieldSet(holder, field) ? key + write(holder[name]) : unset);
    return (holder: Properties) => (holder[name] === undefined ? unset : key + write(holder[name]));
  }

  function messageValue(field: DescField, desc: DescMessage): Write {
    // google.protobuf.Struct is held as a plain object in every field but those of google.protobuf.Value.
    if (desc.typeName === 'google.protobuf.Struct' && field.parent.typeName !== 'google.protobuf.Value') return JSON.stringify;
    return message(desc);
  }

  return { message: (desc) => message(desc), field: (field) => fieldOf(field, '') };
}

function single(kind: 'scalar' | 'enum', field: { scalar: ScalarType | undefined; enum: DescEnum | undefined }, nullable: boolean): Write {
  return kind === 'enum' ? enumeration(field.enum!, nullable) : scalar(field.scalar!);
}

/** The name of an enum value in the dialect: without the prefix that the enum's values share, in lower case. */
export function shortEnumName(value: DescEnumValue): string {
  const prefix = value.parent.sharedPrefix?.length ?? 0;
  return value.name.slice(prefix).toLowerCase();
}

/** Whether this value says "not set" by its name. */
export function isUnspecified(value: DescEnumValue): boolean {
  return value.number === 0 && value.name.endsWith('_UNSPECIFIED');
}

function enumeration(desc: DescEnum, nullable: boolean): Write {
  if (desc.typeName === 'google.protobuf.NullValue') return () => 'null';
  const texts = new Map<number, string>();
  for (const value of desc.values) {
    if (!texts.has(value.number)) texts.set(value.number, nullable && isUnspecified(value) ? 'null' : JSON.stringify(shortEnumName(value)));
  }
  // A number without a name comes from a newer schema; it stays a number, as in ProtoJSON.
  return (value) => texts.get(value) ?? number(value);
}

function scalar(type: ScalarType): Write {
  switch (type) {
    case ScalarType.STRING:
      return text;
    case ScalarType.BOOL:
      return (value) => (value ? 'true' : 'false');
    case ScalarType.BYTES:
      return base64;
    case ScalarType.INT64:
    case ScalarType.UINT64:
    case ScalarType.SINT64:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return (value) => (typeof value === 'bigint' ? `"${value}"` : JSON.stringify(String(value)));
    default:
      return number;
  }
}

/** Anything but printable text that needs no escape: quotes, backslashes, control characters, surrogates. */
const UNSAFE = /[^ !#-[\]-\ud7ff\ue000-\uffff]/;

/** JSON.stringify escapes lone surrogates; short text without anything to escape is quoted as it is, which is faster. */
function text(value: string): string {
  return value.length < 128 && !UNSAFE.test(value) ? `"${value}"` : JSON.stringify(value);
}

/** NaN and the infinities are strings, as in ProtoJSON. */
function number(value: unknown): string {
  return Number.isFinite(value) ? `${value}` : JSON.stringify(String(value));
}

function base64(value: Uint8Array): string {
  return `"${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64')}"`;
}

function timestamp(desc: DescMessage, value: Timestamp): string {
  const { nanos } = value;
  const seconds = Number(value.seconds);
  // Finer than a Date, or out of range: the library writes it, or throws and says why.
  if (nanos % 1_000_000 !== 0 || nanos < 0 || nanos >= 1e9 || seconds < MIN_SECONDS || seconds > MAX_SECONDS)
    return JSON.stringify(toJson(desc, value));
  const iso = isoTime(seconds * 1000 + nanos / 1_000_000);
  return nanos === 0 ? `"${iso.slice(0, 19)}Z"` : `"${iso}"`;
}

const MIN_SECONDS = Date.parse('0001-01-01T00:00:00Z') / 1000;
const MAX_SECONDS = Date.parse('9999-12-31T23:59:59Z') / 1000;

// Server reflection (https://github.com/grpc/grpc/blob/master/doc/server-reflection.md), v1 and v1alpha, which differ in their package only. Always
// true: what is told is what is served. The descriptors are those the services were built from, options included, without source comments.
import { type DescExtension, type DescFile, type DescService, toBinary } from '@bufbuild/protobuf';
import { nestedTypes } from '@bufbuild/protobuf/reflect';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Code, type ServiceImpl } from '@connectrpc/connect';
import { file_google_rpc_error_details } from '../../gen/google/rpc/error_details_pb.js';
import { type ServerReflectionRequest, ServerReflection as V1 } from '../../gen/grpc/reflection/v1/reflection_pb.js';
import {
  type ServerReflectionRequest as AlphaRequest,
  ServerReflection as V1Alpha,
} from '../../gen/grpc/reflection/v1alpha/reflection_pb.js';

/** Both versions of the reflection service, for Connect's router; they list themselves beside `services`. */
export function reflectionServices(
  services: readonly DescService[],
): readonly { readonly desc: DescService; readonly implementation: object }[] {
  const served = [...services, V1, V1Alpha];
  const index = new Index(served);
  const v1: ServiceImpl<typeof V1> = { serverReflectionInfo: (requests) => answer(index, requests) };
  const v1alpha: ServiceImpl<typeof V1Alpha> = { serverReflectionInfo: (requests) => answer(index, requests) };
  return [
    { desc: V1, implementation: v1 },
    { desc: V1Alpha, implementation: v1alpha },
  ];
}

type Request = ServerReflectionRequest | AlphaRequest;

async function* answer<R extends Request>(index: Index, requests: AsyncIterable<R>) {
  // A file goes out once on a stream, except when it is asked for itself.
  const sent = new Set<DescFile>();
  for await (const request of requests) {
    yield { validHost: request.host, originalRequest: request, messageResponse: respond(index, request.messageRequest, sent) };
  }
}

function respond(index: Index, asked: Request['messageRequest'], sent: Set<DescFile>) {
  const files = (found: DescFile | undefined, what: string) =>
    found
      ? { case: 'fileDescriptorResponse' as const, value: { fileDescriptorProto: withDependencies(found, sent) } }
      : failure(Code.NotFound, `${what} is not known here`);
  switch (asked.case) {
    case 'listServices':
      return { case: 'listServicesResponse' as const, value: { service: index.services.map((name) => ({ name })) } };
    case 'fileByFilename':
      return files(index.files.get(asked.value), `the file ${asked.value}`);
    case 'fileContainingSymbol':
      return files(index.symbols.get(asked.value.replace(/^\./, '')), `the symbol ${asked.value}`);
    case 'fileContainingExtension': {
      const { containingType, extensionNumber } = asked.value;
      return files(index.extensions.get(containingType)?.get(extensionNumber)?.file, `extension ${extensionNumber} of ${containingType}`);
    }
    case 'allExtensionNumbersOfType': {
      const numbers = index.extensions.get(asked.value);
      if (!numbers && !index.messages.has(asked.value)) return failure(Code.NotFound, `the type ${asked.value} is not known here`);
      const extensionNumber = [...(numbers?.keys() ?? [])].sort((a, b) => a - b);
      return { case: 'allExtensionNumbersResponse' as const, value: { baseTypeName: asked.value, extensionNumber } };
    }
    default:
      return failure(Code.InvalidArgument, 'the request asks for nothing that this server knows of');
  }
}

function failure(errorCode: Code, errorMessage: string) {
  return { case: 'errorResponse' as const, value: { errorCode, errorMessage } };
}

/** The file first, then what it imports, directly or not, that this stream has not had yet. */
function withDependencies(file: DescFile, sent: Set<DescFile>): Uint8Array[] {
  const out: Uint8Array[] = [];
  const queue = [file];
  for (const next of queue) {
    if (out.length > 0 && sent.has(next)) continue;
    sent.add(next);
    out.push(toBinary(FileDescriptorProtoSchema, next.proto));
    queue.push(...next.dependencies.filter((dependency) => !sent.has(dependency)));
  }
  return out;
}

/** Everything that can be asked for, found once. */
class Index {
  readonly services: readonly string[];
  readonly files = new Map<string, DescFile>();
  readonly symbols = new Map<string, DescFile>();
  readonly messages = new Set<string>();
  readonly extensions = new Map<string, Map<number, DescExtension>>();

  constructor(services: readonly DescService[]) {
    this.services = services.map((service) => service.typeName).sort();
    for (const service of services) this.#add(service.file);
    // No method names them, but every error carries them, and callers ask here for what it means.
    this.#add(file_google_rpc_error_details);
  }

  #add(file: DescFile): void {
    if (this.files.has(file.proto.name)) return;
    this.files.set(file.proto.name, file);
    for (const type of nestedTypes(file)) {
      this.symbols.set(type.typeName, file);
      if (type.kind === 'service') for (const method of type.methods) this.symbols.set(`${type.typeName}.${method.name}`, file);
      if (type.kind === 'message') {
        this.messages.add(type.typeName);
        for (const member of [...type.fields, ...type.oneofs]) this.symbols.set(`${type.typeName}.${member.name}`, file);
      }
      // By protobuf's scoping rules an enum's values are siblings of the enum.
      if (type.kind === 'enum') {
        const scope = type.typeName.slice(0, -type.name.length);
        for (const value of type.values) this.symbols.set(scope + value.name, file);
      }
      if (type.kind === 'extension') {
        const numbers = this.extensions.get(type.extendee.typeName) ?? new Map<number, DescExtension>();
        this.extensions.set(type.extendee.typeName, numbers.set(type.number, type));
      }
    }
    for (const dependency of file.dependencies) this.#add(dependency);
  }
}

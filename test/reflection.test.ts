import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Code, createClient, createRouterTransport } from '@connectrpc/connect';
import { ServerReflection, type ServerReflectionRequestSchema } from '../gen/grpc/reflection/v1/reflection_pb.js';
import { ServerReflection as V1Alpha } from '../gen/grpc/reflection/v1alpha/reflection_pb.js';
import { reflectionServices } from '../src/rpc/reflection.ts';
import { BookService } from './fixtures/rest/bookstore_pb.js';

type Question = NonNullable<MessageInitShape<typeof ServerReflectionRequestSchema>['messageRequest']>;

for (const [version, Reflection] of [
  ['v1', ServerReflection],
  ['v1alpha', V1Alpha as unknown as typeof ServerReflection],
] as const) {
  const transport = createRouterTransport((router) => {
    for (const { desc, implementation } of reflectionServices([BookService])) router.service(desc, implementation);
  });
  const client = createClient(Reflection, transport);

  async function ask(...questions: Question[]) {
    const answers = [];
    const requests = async function* () {
      for (const messageRequest of questions) yield { host: 'here', messageRequest };
    };
    for await (const response of client.serverReflectionInfo(requests())) {
      assert.equal(response.validHost, 'here');
      answers.push(response);
    }
    return answers.map(({ messageResponse }) => messageResponse);
  }
  async function files(...questions: Question[]): Promise<string[][]> {
    return (await ask(...questions)).map((answer) =>
      answer.case === 'fileDescriptorResponse'
        ? answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name)
        : [],
    );
  }

  test(`${version}: list names the services and reflection itself`, async () => {
    const [answer] = await ask({ case: 'listServices', value: '' });
    assert.equal(answer?.case, 'listServicesResponse');
    assert.deepEqual(
      answer.value.service.map(({ name }) => name),
      ['bookstore.v1.BookService', 'grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection'],
    );
  });

  test(`${version}: a file comes first, its imports follow, and what a stream has had is not sent again`, async () => {
    const [first, again, imported] = await files(
      { case: 'fileByFilename', value: 'bookstore.proto' },
      { case: 'fileByFilename', value: 'bookstore.proto' },
      { case: 'fileByFilename', value: 'google/api/annotations.proto' },
    );
    assert.equal(first?.[0], 'bookstore.proto');
    assert.ok(first?.includes('google/protobuf/descriptor.proto'));
    assert.equal(new Set(first).size, first?.length);
    assert.deepEqual(again, ['bookstore.proto']);
    assert.deepEqual(imported, ['google/api/annotations.proto']);
  });

  for (const symbol of [
    'bookstore.v1.BookService',
    'bookstore.v1.BookService.GetBook',
    'bookstore.v1.Book',
    'bookstore.v1.Book.title',
    'bookstore.v1.Book.edition',
    'bookstore.v1.Genre',
    'bookstore.v1.GENRE_NOVEL',
    '.bookstore.v1.Event',
  ]) {
    test(`${version}: ${symbol} is found in its file`, async () => {
      assert.equal((await files({ case: 'fileContainingSymbol', value: symbol }))[0]?.[0], 'bookstore.proto');
    });
  }

  test(`${version}: what the details of an error mean can be asked for`, async () => {
    assert.deepEqual(await files({ case: 'fileContainingSymbol', value: 'google.rpc.BadRequest' }), [
      ['google/rpc/error_details.proto', 'google/protobuf/duration.proto'],
    ]);
  });

  test(`${version}: extensions are found by type and number`, async () => {
    const [numbers, file] = await ask(
      { case: 'allExtensionNumbersOfType', value: 'google.protobuf.MethodOptions' },
      { case: 'fileContainingExtension', value: { containingType: 'google.protobuf.MethodOptions', extensionNumber: 73501 } },
    );
    assert.equal(numbers?.case, 'allExtensionNumbersResponse');
    assert.deepEqual(numbers.value.extensionNumber, [73501, 72295728]);
    assert.equal(file?.case, 'fileDescriptorResponse');
  });

  test(`${version}: what does not exist is an error in the answer, and the stream goes on`, async () => {
    const answers = await ask(
      { case: 'fileByFilename', value: 'nope.proto' },
      { case: 'fileContainingSymbol', value: 'nope.Nope' },
      { case: 'fileContainingExtension', value: { containingType: 'bookstore.v1.Book', extensionNumber: 1 } },
      { case: 'allExtensionNumbersOfType', value: 'nope.Nope' },
      { case: undefined },
      { case: 'allExtensionNumbersOfType', value: 'bookstore.v1.Book' },
    );
    const codes = answers.map((answer) => (answer.case === 'errorResponse' ? answer.value.errorCode : answer.case));
    assert.deepEqual(codes, [
      Code.NotFound,
      Code.NotFound,
      Code.NotFound,
      Code.NotFound,
      Code.InvalidArgument,
      'allExtensionNumbersResponse',
    ]);
  });
}

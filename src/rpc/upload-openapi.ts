// The ways to upload that are no rpc, in the words of OpenAPI, to be merged into the document of the routes; a test calls each operation that stands here.
import type { Json, OpenApiOptions } from '../rest/openapi.ts';

const TAG = 'Uploads';
const ERROR = { $ref: '#/components/responses/Error' };
const UPLOAD = { $ref: '#/components/schemas/Upload' };

const header = (name: string, description: string, schema: Json, required = false): Json => ({
  name,
  in: 'header',
  description,
  schema,
  ...(required && { required }),
});
const OCTETS = { 'application/offset+octet-stream': { schema: { type: 'string', format: 'binary' } } };
const INTEGER = { type: 'integer', format: 'int64', minimum: 0 };
const VERSION = header('Tus-Resumable', 'Version of the protocol', { type: 'string', const: '1.0.0' }, true);
const OFFSET = header('Upload-Offset', 'Bytes that the service has, as HEAD says', INTEGER, true);
const ID: Json = { name: 'id', in: 'path', required: true, description: 'That of upload://ID', schema: { type: 'string', minLength: 1 } };

/** What an answer says of an upload; the last three when it is whole. */
const TUS_HEADERS: Json = {
  'Upload-Offset': { schema: INTEGER },
  'Upload-Expires': { schema: { type: 'string' }, description: 'When it is deleted, as HTTP writes dates' },
  'Upload-Uri': { schema: { type: 'string' }, description: 'upload://ID, for a job' },
  'Upload-Sha256': { schema: { type: 'string', pattern: '^[0-9a-f]{64}$' } },
  'Upload-Media-Type': { schema: { type: 'string' } },
};

/** `form` and `tus`: where they are mounted. */
export function uploadsOpenApi(form: string, tus: string): NonNullable<OpenApiOptions['extra']> {
  const tusDescription = 'One of the operations of tus 1.0.0 (https://tus.io/protocols/resumable-upload): use a client of it';
  return {
    tags: [{ name: TAG, description: 'Media for jobs: a form for small files, tus for large ones and for connections that break' }],
    schemas: {
      Upload: {
        type: 'object',
        properties: {
          uri: { type: 'string', description: 'upload://ID, for a job', examples: ['upload://0123456789abcdef0123456789abcdef'] },
          sha256: { type: 'string', pattern: '^[0-9a-f]{64}$' },
          bytes: { type: 'string', format: 'int64', pattern: '^[0-9]+$' },
          media_type: { type: 'string', description: 'By its first bytes' },
          expire_time: { type: 'string', format: 'date-time' },
        },
      },
    },
    paths: {
      [form]: {
        post: {
          operationId: 'Uploads_Form',
          tags: [TAG],
          summary: 'Upload files from a form',
          description: 'All files of the form are taken, or none: where one is refused, those before it are taken back.',
          requestBody: {
            required: true,
            content: {
              'multipart/form-data': {
                schema: {
                  type: 'object',
                  properties: {
                    file: { type: 'array', items: { type: 'string', format: 'binary' }, description: 'Under any name, at most 20' },
                  },
                },
              },
            },
          },
          responses: {
            201: {
              description: 'The uploads in the order of the form',
              content: {
                'application/json': {
                  schema: {
                    type: 'object',
                    properties: {
                      uploads: {
                        type: 'array',
                        items: {
                          allOf: [UPLOAD, { type: 'object', properties: { field: { type: 'string' }, filename: { type: 'string' } } }],
                        },
                      },
                    },
                  },
                },
              },
            },
            413: ERROR,
            415: ERROR,
            default: ERROR,
          },
        },
      },
      [`${form}/{id}`]: {
        get: {
          operationId: 'Uploads_Get',
          tags: [TAG],
          summary: 'What is known of a finished upload',
          parameters: [ID],
          responses: { 200: { description: 'Success', content: { 'application/json': { schema: UPLOAD } } }, default: ERROR },
        },
      },
      [tus]: {
        post: {
          operationId: 'Uploads_TusCreate',
          tags: [TAG],
          summary: 'Begin an upload',
          description: tusDescription,
          parameters: [
            VERSION,
            header('Upload-Length', 'Bytes that will come; without it Upload-Defer-Length: 1', INTEGER),
            header('Upload-Metadata', 'Pairs of name and base64, such as filename and sha256', { type: 'string' }),
          ],
          requestBody: { required: false, description: 'The first bytes', content: OCTETS },
          responses: {
            201: { description: 'Created', headers: { Location: { schema: { type: 'string', format: 'uri-reference' } }, ...TUS_HEADERS } },
            413: ERROR,
            default: ERROR,
          },
        },
      },
      [`${tus}/{id}`]: {
        head: {
          operationId: 'Uploads_TusOffset',
          tags: [TAG],
          summary: 'How much of an upload is there',
          description: tusDescription,
          parameters: [ID, VERSION],
          responses: { 200: { description: 'Success', headers: TUS_HEADERS }, default: { description: 'An error; HEAD has no body' } },
        },
        patch: {
          operationId: 'Uploads_TusAppend',
          tags: [TAG],
          summary: 'Send more of an upload',
          description: tusDescription,
          parameters: [ID, VERSION, OFFSET],
          requestBody: { required: true, content: OCTETS },
          responses: { 204: { description: 'Taken', headers: TUS_HEADERS }, 409: ERROR, 423: ERROR, default: ERROR },
        },
        delete: {
          operationId: 'Uploads_TusRemove',
          tags: [TAG],
          summary: 'Remove an upload',
          description: tusDescription,
          parameters: [ID, VERSION],
          responses: { 204: { description: 'Removed' }, default: ERROR },
        },
      },
    },
  };
}

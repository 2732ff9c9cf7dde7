import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fromJson, type JsonObject } from '@bufbuild/protobuf';
import { CapabilitiesSchema } from '../gen/facefusion/worker/v1/worker_pb.js';
import { didYouMean, parametersSchema, resolveParameters, type TargetKind } from '../src/jobs/parameters.ts';

const capabilities = fromJson(CapabilitiesSchema, {
  processors: [{ name: 'face_swapper', needs_source_image: true }, { name: 'face_enhancer' }],
  options: [
    { name: 'processors', type: 'OPTION_TYPE_STRING', list: true, choices: ['face_swapper', 'face_enhancer'], default: ['face_swapper'] },
    { name: 'output_image_quality', type: 'OPTION_TYPE_INTEGER', minimum: 0, maximum: 100, default: 80 },
    { name: 'output_video_quality', type: 'OPTION_TYPE_INTEGER', minimum: 0, maximum: 100, default: 80 },
    { name: 'output_video_fps', type: 'OPTION_TYPE_NUMBER', minimum: 1, maximum: 60 },
    { name: 'face_enhancer_blend', type: 'OPTION_TYPE_NUMBER', minimum: 0, maximum: 1, default: 0.5, processor: 'face_enhancer' },
    { name: 'model', type: 'OPTION_TYPE_STRING', choices: ['small', 'large'], default: 'small' },
    {
      name: 'size',
      type: 'OPTION_TYPE_STRING',
      choices: ['128', '256', '512'],
      default: '128',
      dependent_choices: [
        { option: 'model', value: 'small', choices: ['128', '256'] },
        { option: 'model', value: 'large', choices: ['512'] },
      ],
    },
    { name: 'keep_fps', type: 'OPTION_TYPE_BOOLEAN', default: false },
    { name: 'padding', type: 'OPTION_TYPE_INTEGER', list: true, minimum: 0, maximum: 100 },
  ],
  ignored_options: ['face_detector_model', 'lip_syncer_model'],
});

const resolve = (given: JsonObject, target: TargetKind = 'video') => resolveParameters(given, target, { name: 'test', capabilities });

describe('parameters', () => {
  test('defaults are filled in for the chosen processors alone', () => {
    const { parameters, processors, violations } = resolve({});
    assert.deepEqual(violations, []);
    assert.deepEqual(processors, ['face_swapper']);
    assert.deepEqual(parameters, {
      processors: ['face_swapper'],
      output_image_quality: 80,
      output_video_quality: 80,
      model: 'small',
      size: '128',
      keep_fps: false,
    });
    assert.equal(resolve({ processors: ['face_enhancer'] }).parameters.face_enhancer_blend, 0.5);
  });

  test('a default that another choice leaves no room for is not given to the engine', () => {
    const { parameters, violations } = resolve({ model: 'large' });
    assert.deepEqual([violations, parameters.model, parameters.size], [[], 'large', undefined]);
    assert.equal(resolve({ model: 'large', size: '512' }).parameters.size, '512');
    assert.match(resolve({ model: 'large', size: '128' }).violations[0]!.description, /not a choice with model large/);
  });

  test('aliases go to the option of the target; what means nothing for it is a warning', () => {
    assert.equal(resolve({ output_quality: 95, fps: 30 }).parameters.output_video_quality, 95);
    assert.equal(resolve({ output_quality: 95, fps: 30 }).parameters.output_video_fps, 30);
    const image = resolve({ output_quality: 95, fps: 30 }, 'image');
    assert.equal(image.parameters.output_image_quality, 95);
    assert.match(image.warnings.join(), /'fps' means nothing for a picture/);
    assert.match(resolve({ temp_directory: '/tmp/x' }).warnings.join(), /temp_directory/);
    assert.match(resolve({ face_detector: 'retinaface' }).warnings.join(), /'face_detector'.*left out/);
  });

  const BAD: readonly [name: string, given: JsonObject, field: string, reason: string, says: RegExp][] = [
    [
      'an unknown option',
      { output_video_qualty: 3 },
      'parameters.output_video_qualty',
      'UNKNOWN_OPTION',
      /did you mean 'output_video_quality'/,
    ],
    ['nothing like an option', { zzz: 3 }, 'parameters.zzz', 'UNKNOWN_OPTION', /GetCapabilities lists all/],
    ['an option of the operator', { execution_providers: ['cuda'] }, 'parameters.execution_providers', 'OPERATOR_OPTION', /whoever runs/],
    ['a string for a number', { output_video_quality: '95' }, 'parameters.output_video_quality', 'WRONG_TYPE', /a whole number, not "95"/],
    ['a fraction for a whole number', { output_video_quality: 9.5 }, 'parameters.output_video_quality', 'WRONG_TYPE', /a whole number/],
    ['a number for a boolean', { keep_fps: 1 }, 'parameters.keep_fps', 'WRONG_TYPE', /true or false/],
    ['a value for a list', { processors: 'face_swapper' }, 'parameters.processors', 'WRONG_TYPE', /takes a list/],
    ['an object for a string', { model: {} }, 'parameters.model', 'WRONG_TYPE', /a string/],
    ['a choice that does not exist', { model: 'smal' }, 'parameters.model', 'NOT_A_CHOICE', /did you mean 'small'.*allowed: small, large/],
    [
      'a choice that hangs on another option',
      { model: 'large', size: '128' },
      'parameters.size',
      'NOT_A_CHOICE',
      /with model large.*allowed: 512/,
    ],
    ['a value out of range', { output_video_quality: 101 }, 'parameters.output_video_quality', 'OUT_OF_RANGE', /allowed: 0 to 100/],
    ['an element out of range', { padding: [1, 200] }, 'parameters.padding[1]', 'OUT_OF_RANGE', /200/],
    ['a choice twice', { processors: ['face_swapper', 'face_swapper'] }, 'parameters.processors[1]', 'REPEATED', /twice/],
    ['an option and its alias', { fps: 3, output_video_fps: 4 }, 'parameters.output_video_fps', 'GIVEN_TWICE', /'fps' set the same/],
    ['a name of the language', JSON.parse('{"__proto__": 1}') as JsonObject, 'parameters.__proto__', 'UNKNOWN_OPTION', /__proto__/],
  ];
  for (const [name, given, field, reason, says] of BAD) {
    test(`${name} is refused in words`, () => {
      const [violation, ...more] = resolve(given).violations;
      assert.deepEqual(more, []);
      assert.equal(violation?.field, field);
      assert.equal(violation.reason, reason);
      assert.match(violation.description, says);
    });
  }

  test('every violation comes at once', () => {
    assert.equal(resolve({ a: 1, model: 'x', keep_fps: 'no', output_video_quality: -1 }).violations.length, 4);
  });

  test('null is as good as not given; an option without its processor is a warning', () => {
    assert.deepEqual(resolve({ model: null }).violations, []);
    const { parameters, warnings } = resolve({ face_enhancer_blend: 0.1 });
    assert.ok(!('face_enhancer_blend' in parameters));
    assert.match(warnings.join(), /has no effect/);
  });

  test('the JSON Schema names every option with its type, range, choices and default', () => {
    const schema = parametersSchema('test', capabilities) as { properties: Record<string, JsonObject> };
    assert.deepEqual(schema.properties.output_video_quality, { type: 'integer', minimum: 0, maximum: 100, default: 80 });
    assert.deepEqual(schema.properties.processors?.type, 'array');
    assert.equal(schema.properties.lip_syncer_model?.deprecated, true);
    assert.equal(schema.properties.fps?.type, 'number');
  });

  test('a hint is given only where a name is near', () => {
    assert.equal(didYouMean('modle', ['model', 'size']), "; did you mean 'model'?");
    assert.equal(didYouMean('something', ['model', 'size']), '');
    assert.equal(didYouMean('x'.repeat(10_000), ['model']), '');
  });
});

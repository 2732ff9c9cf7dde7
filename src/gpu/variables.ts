// Variables of the service's environment that a process with an engine in it is given, by name. Always true: none of them can be a secret.

export const USUAL_VARIABLES: readonly string[] = ['PATH', 'HOME', 'LANG', 'TMPDIR', 'PYTHONPATH', 'CUDA_VISIBLE_DEVICES'];

/** Where the drivers of a device, the libraries of a system and its time are found. */
export const SYSTEM_VARIABLES: readonly string[] = [
  'LC_ALL',
  'TZ',
  'LD_LIBRARY_PATH',
  'NVIDIA_VISIBLE_DEVICES',
  'NVIDIA_DRIVER_CAPABILITIES',
  'CUDA_PATH',
  'CUDA_HOME',
  'CUDA_CACHE_PATH',
  'HIP_VISIBLE_DEVICES',
  'ROCR_VISIBLE_DEVICES',
  'HSA_OVERRIDE_GFX_VERSION',
  'ROCM_PATH',
];

/** Of `environment`, those that are there. */
export function variablesNamed(
  names: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  return Object.fromEntries(names.flatMap((name) => (environment[name] === undefined ? [] : [[name, environment[name]]])));
}

// expect: on a device use cuda::device::try_out(stream, call).scratch_bytes
// SPDX-License-Identifier: Apache-2.0
#define KVEVICT_SIMT_EMULATION <support/simt/shim.hpp>
#include <kvevict/cuda.cuh>

std::int64_t scratch_of(kvevict::cuda::device& ctx) {
  return kvevict::workspace_bytes(ctx, kvevict::presets::snapkv(), {});
}

int main() {}

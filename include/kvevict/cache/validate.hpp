// SPDX-License-Identifier: Apache-2.0
// Every check a view can be given without reading K or V: ids, doubles, overlaps, lengths, strides, alignment. O(pages).
#pragma once

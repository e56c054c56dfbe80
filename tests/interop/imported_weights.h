// Weights of Hugging Face's files in a model that a test drives.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "models/formats/hugging_face.h"
#include "tests/models/transformer_on_device.h"

namespace strake::test {

// T: what the model computes in.
template <typename T>
void import_into(TransformerOnDevice& model, const models::TransformerShape& shape, Files& files,
                 const std::filesystem::path& folder) {
  const auto source = checkpoint::Safetensors::open(files, folder);
  for (const models::ForeignTensor& tensor : models::hugging_face_tensors(shape)) {
    const checkpoint::SafetensorsEntry* entry = source.find(models::with_hugging_face_prefix(shape, tensor.name));
    ASSERT_NE(entry, nullptr) << tensor.name;
    ASSERT_EQ(entry->shape, tensor.shape) << tensor.name;
    const ParamSpec& spec = model.layout().spec(tensor.param);
    std::vector<float> theirs(static_cast<std::size_t>(tensor.elems()));
    source.read_f32(*entry, 0, theirs);
    const std::span<T> place = model.weights<T>().subspan(
        static_cast<std::size_t>(model.layout().offset_elems(tensor.param)), static_cast<std::size_t>(spec.elems()));
    std::vector<float> ours(place.begin(), place.end());  // what other tensors have left there
    models::copy_from(tensor, spec, theirs, ours);
    std::copy(ours.begin(), ours.end(), place.begin());
  }
}

}  // namespace strake::test

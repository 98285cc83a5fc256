// Classes of an image in C++ with ONNX Runtime; the file prepares the pixels itself.
//
//   tofe-export onnx ckpt.pth --input image --outputs classes -o served.onnx
//   build/classify_onnxruntime served.onnx image.ppm
#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <iostream>

#include "ppm.hpp"

int main(int count, char** arguments) {
    if (count != 3) {
        std::cerr << "usage: classify_onnxruntime MODEL.onnx IMAGE.ppm\n";
        return 2;
    }
    try {
        Picture picture = read_ppm(arguments[2]);
        Ort::Env environment(ORT_LOGGING_LEVEL_ERROR);
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(1);
        Ort::Session session(environment, arguments[1], options);
        const std::array<std::int64_t, 4> shape = {
            1, static_cast<std::int64_t>(picture.height), static_cast<std::int64_t>(picture.width), 3};
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const Ort::Value pixels = Ort::Value::CreateTensor<std::uint8_t>(
            memory, picture.pixels.data(), picture.pixels.size(), shape.data(), shape.size());
        const char* inputs[] = {"pixels"};
        const char* outputs[] = {"classes", "probabilities"};
        const auto answer = session.Run(Ort::RunOptions{nullptr}, inputs, &pixels, 1, outputs, 2);
        const auto* classes = answer[0].GetTensorData<std::int64_t>();
        const auto* probabilities = answer[1].GetTensorData<float>();
        for (std::size_t place = 0; place < answer[0].GetTensorTypeAndShapeInfo().GetElementCount(); ++place)
            std::cout << classes[place] << " " << probabilities[place] << "\n";
    } catch (const std::exception& error) {  // Ort::Exception too
        std::cerr << "error: " << error.what() << "\n";
        return 1;
    }
    return 0;
}

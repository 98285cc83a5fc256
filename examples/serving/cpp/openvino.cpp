// Classes of an image in C++ with OpenVINO; the file prepares the pixels itself.
//
//   tofe-export optimize model.onnx --for openvino --input image --classes 5 -o served.onnx
//   build/classify_openvino served.onnx image.ppm
#include <openvino/openvino.hpp>

#include <cstdint>
#include <iostream>

#include "ppm.hpp"

int main(int count, char** arguments) {
    if (count != 3) {
        std::cerr << "usage: classify_openvino MODEL.onnx IMAGE.ppm\n";
        return 2;
    }
    try {
        Picture picture = read_ppm(arguments[2]);
        ov::Core core;
        auto model = core.compile_model(arguments[1], "CPU", ov::hint::inference_precision(ov::element::f32));
        auto request = model.create_infer_request();
        request.set_input_tensor(
            ov::Tensor(ov::element::u8, {1, picture.height, picture.width, 3}, picture.pixels.data()));
        request.infer();
        const ov::Tensor classes = request.get_tensor("classes"), probabilities = request.get_tensor("probabilities");
        for (std::size_t place = 0; place < classes.get_size(); ++place)
            std::cout << classes.data<std::int64_t>()[place] << " " << probabilities.data<float>()[place] << "\n";
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << "\n";
        return 1;
    }
    return 0;
}

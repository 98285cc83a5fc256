// Classes of an image in C++ with OpenVINO; the file prepares the pixels itself.
//
//   tofe-export optimize model.onnx --for openvino --input image --classes 5 -o served.onnx
//   ./classify served.onnx image.ppm          (a binary PPM of any size: convert cat.jpg image.ppm)
#include <openvino/openvino.hpp>

#include <cstdint>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
    std::size_t height = 0, width = 0;
    std::vector<std::uint8_t> pixels;
};

// A binary PPM (P6) without comments, 8 bits a channel.
Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    Picture picture;
    int most = 0;
    file >> kind >> picture.width >> picture.height >> most;
    if (!file || kind != "P6" || most != 255 || picture.width == 0 || picture.height == 0 || picture.width > 32768 ||
        picture.height > 32768)
        throw std::runtime_error(path + " is not a binary PPM image with 8 bits a channel.");
    file.get();
    picture.pixels.resize(picture.height * picture.width * 3);
    file.read(reinterpret_cast<char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()));
    if (!file) throw std::runtime_error(path + " ends too early.");
    return picture;
}

int main(int count, char** arguments) {
    if (count != 3) {
        std::cerr << "usage: classify MODEL.onnx IMAGE.ppm\n";
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

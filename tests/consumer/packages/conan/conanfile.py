# SPDX-License-Identifier: Apache-2.0
"""Conan recipe of this tree: conan create tests/consumer/packages/conan

The target is the one that `cmake --install` makes, so that find_package(kvevict) is the same everywhere.
"""

import os
import re

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy, load

ROOT = ("..", "..", "..", "..")


class Kvevict(ConanFile):
    name = "kvevict"
    license = "Apache-2.0"
    description = "KV-cache eviction policies for LLM inference engines"
    topics = ("llm", "inference", "kv-cache", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    # the thread pool, <kvevict/threads.hpp>, is the only header that includes Eigen
    options = {"threads": [True, False]}
    default_options = {"threads": True}
    no_copy_source = True

    def set_version(self):
        text = load(self, os.path.join(self.recipe_folder, *ROOT, "include", "kvevict", "version.hpp"))
        self.version = ".".join(re.findall(r"define KVEVICT_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", text))

    def export_sources(self):
        for pattern in ("include/*", "LICENSE"):
            copy(self, pattern, os.path.join(self.recipe_folder, *ROOT), self.export_sources_folder)

    def requirements(self):
        if self.options.threads:
            self.requires("eigen/3.4.0", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)
        if self.settings.compiler not in ("gcc", "clang", "apple-clang"):
            raise ConanInvalidConfiguration("kvevict needs the vector extension that g++ and clang share")

    def package(self):
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        copy(self, "include/*", self.source_folder, self.package_folder)

    def package_id(self):
        self.info.clear()

    def package_info(self):
        self.cpp_info.bindirs = self.cpp_info.libdirs = []
        self.cpp_info.set_property("cmake_file_name", "kvevict")
        self.cpp_info.set_property("cmake_target_name", "kvevict::kvevict")
        if self.settings.os in ("Linux", "FreeBSD"):
            self.cpp_info.system_libs = ["pthread"]

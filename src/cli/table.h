// Table: columns as wide as their widest cell, for people to read. Numbers stand right, texts left.
#pragma once

#include <string>
#include <vector>

namespace conclave::cli {

class Table {
 public:
  // A name that begins with '>' makes a column of numbers.
  explicit Table(std::vector<std::string> columns);
  void add(std::vector<std::string> cells);
  [[nodiscard]] std::string text() const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;  // the first is the head
};

}  // namespace conclave::cli
